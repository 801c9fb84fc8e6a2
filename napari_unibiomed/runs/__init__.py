"""One run: what is asked for, whether it can start, how it ended."""
