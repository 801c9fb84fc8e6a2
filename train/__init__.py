"""Training, evaluation and data preparation for the joint model."""
