"""Findings as rows: the model behind the panel, edits, linked text, measuring, export."""
