"""Being asked: the socket under its name, connections, and hit workers."""
