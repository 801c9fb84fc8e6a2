"""Colours that can be read: a finding's colour as text on the window's background (WCAG 2)."""

from __future__ import annotations

READABLE = 4.5
"""Least contrast of text to its background, WCAG 2 level AA."""

_STEPS = 20


def luminance(colour: str) -> float:
    """Relative luminance of #RRGGBB, 0..1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1..21."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def readable(colour: str, background: str) -> str:
    """A colour mixed with white or black just as far as it takes to be read on a background."""
    towards = 255 if luminance(background) < 0.18 else 0
    for step in range(_STEPS + 1):
        share = step / _STEPS
        mixed = "#{:02x}{:02x}{:02x}".format(*(round(v + (towards - v) * share) for v in _rgb(colour)))
        if contrast(mixed, background) >= READABLE:
            return mixed
    return mixed


def ink(background: str) -> str:
    """Black or white, whichever is read better on a colour."""
    return "#000000" if contrast("#000000", background) >= contrast("#ffffff", background) else "#ffffff"


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
