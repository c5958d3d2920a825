"""What is under way, for whom, and with how much memory; the pool of tokens is server/jobserver.py."""
