"""Predict to files, then score files: masks, words, tables, figures."""
