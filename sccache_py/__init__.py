"""The pure core of sccache-py: values and bytes, no I/O."""

__version__ = "0.1.0"
