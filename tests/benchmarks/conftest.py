"""The benchmarks are scripts beside the package, and the toy model lives with the engine's tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
