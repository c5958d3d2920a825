"""Which compiler a name stands for."""
