"""The session of a viewer: its state, its worker thread, its models and phases."""
