"""What is known of files, and for how long it holds."""
