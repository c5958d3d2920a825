"""What every part of the server uses of its own process: threads, heap, quiet times, the trace, and the machine."""
