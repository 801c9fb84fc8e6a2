"""Prints the table of the fault suite as Markdown: ``python tests/faults/run_mutations.py --cases 2000 --cuts``."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.faults.sound_files import FIRST_CUT, FORMATS, cut_count
from tests.faults.trials import BAD, GOOD, Tally, Trials

HEAD = ("format", "mutations", "cuts", "read", "refused", *BAD, "slowest, s", "largest, MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="mutations of each format")
    parser.add_argument("--cuts", action="store_true", help="besides, every file is cut at every field of its headers")
    parser.add_argument("--workers", type=int, default=2, help="formats at the same time")
    parser.add_argument("--formats", default="", help="only those with this in their name")
    parser.add_argument("--faults", type=int, default=5, help="how many faults of a format are shown")
    asked = parser.parse_args()
    names = [name for name in FORMATS if asked.formats.lower() in name.lower()]
    with ThreadPoolExecutor(asked.workers) as pool:
        found = pool.map(lambda name: tally(name, asked.cases, asked.cuts), names)
        sys.stdout.write("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD) + "\n")
        failed = False
        for name, one in zip(names, found, strict=True):
            sys.stdout.write(row(name, one, asked.cases))
            sys.stdout.flush()
            failed |= bool(one.faults)
            for line in one.faults[: asked.faults]:
                sys.stderr.write(f"{name}: {line}\n")
    return int(failed)


def tally(name: str, cases: int, cuts: bool) -> Tally:
    with Trials() as trials:
        seeded = trials.run(name, 0, cases)
        return seeded + trials.run(name, FIRST_CUT, cut_count(name)) if cuts else seeded


def row(name: str, found: Tally, cases: int) -> str:
    """A line of Markdown; processor seconds and memory beyond what was in use before the case."""
    counts = [found.outcomes[outcome] for outcome in (*GOOD, *BAD)]
    cells = [name, cases, sum(counts) - cases, *counts, f"{found.slowest:.2f}", f"{found.largest / 1e6:.0f}"]
    return "| " + " | ".join(map(str, cells)) + " |\n"


if __name__ == "__main__":
    sys.exit(main())
