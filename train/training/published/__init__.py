"""The published model's own training step."""
