"""Side by side: this cache and its peers on the same work in the same run.  `python benchmarks/run.py --help`."""
