"""Starting programs, what is seen of them, and how tokens reach them."""
