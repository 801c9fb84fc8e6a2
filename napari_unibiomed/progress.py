"""How far a job is, in words."""

from __future__ import annotations

from datetime import datetime


def progress_text(done: int, total: int, seconds_gone: float, seconds_left: float | None) -> str:
    """``36 of 120 slices · 1:10 gone · about 2:40 left``: how many are done, which is no slice number."""
    left = "" if seconds_left is None else f" \u00b7 about {clock(seconds_left)} left"
    return f"{done} of {total} slices \u00b7 {clock(seconds_gone)} gone{left}"


def download_text(done_bytes: int, total_bytes: int, seconds_gone: float) -> str:
    """``412 of 4,012 MB · 8.3 MB/s``."""
    speed = f" \u00b7 {done_bytes / 1e6 / seconds_gone:.1f} MB/s" if seconds_gone > 0.5 else ""
    return f"{done_bytes / 1e6:,.0f} of {total_bytes / 1e6:,.0f} MB{speed}"


def size_text(count: int) -> str:
    """``3.4 MB`` of so many bytes."""
    return f"{count / 1e6:,.1f} MB" if count >= 50_000 else f"{max(1, round(count / 1e3))} kB"


def moment_text(seconds: float) -> str:
    """``2026-11-29 10:32``: local date and time of a moment, given in seconds since 1970."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def clock(seconds: float) -> str:
    """``m:ss``, from an hour on ``h:mm:ss``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
