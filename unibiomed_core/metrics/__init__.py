"""Pure functions of stored predictions."""
