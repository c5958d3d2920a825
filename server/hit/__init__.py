"""What a hit does: which remembered compile holds now, and its outputs."""
