"""Thin widgets: they draw what the models hold and forward what the user does."""
