"""Runs kept on the disk while they go on."""
