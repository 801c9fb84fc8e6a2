"""The training loop, its stages, checkpoints and validation."""
