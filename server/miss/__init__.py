"""What a miss does: one flight, the compile, and from its record to an entry."""
