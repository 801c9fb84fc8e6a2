"""python benchmarks/run.py OUT [ID ...]: what the engine's work costs, each value beside its bar; all rows without ids.

Prints one table and writes OUT/benchmarks.json and OUT/benchmarks.png. Rows are counts, FLOPs, or ratios of medians
measured alternately in one process; nothing is asserted here, the tests assert counts. On a CPU the embedded model is
timed, on a GPU also one of the published size with random weights. How many cores are used is torch's to say
(OMP_NUM_THREADS). R0 FLOPs, R1 encodes, R2 more targets, R3 second question, R4 decode steps, R5 batches, R6 the
straight loop, R7 tokens a second, R8 memory, R9 disk, R12 imports, R14 a whole report, R15
checks of what is found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import counted, resources, timed
from benchmarks.bars import Row, table, write
from benchmarks.subject import Subject, subjects

WITHOUT_SUBJECT: Mapping[str, tuple[Callable[[], list[Row]], ...]] = {
    "R0": (counted.published_size,),
    "R2": (counted.more_targets,),
    "R8": (resources.memory,),
    "R12": (resources.imports,),
    "R14": (resources.whole_report,),
}
WITH_SUBJECT: Mapping[str, tuple[Callable[[Subject], list[Row]], ...]] = {
    "R1": (counted.counts,),
    "R2": (timed.more_targets,),
    "R3": (timed.second_question,),
    "R4": (counted.counts,),
    "R5": (timed.batches,),
    "R6": (timed.against_straight,),
    "R7": (timed.tokens_per_second,),
    "R9": (resources.disk,),
    "R15": (resources.checks,),
}
IDS = sorted({*WITHOUT_SUBJECT, *WITH_SUBJECT}, key=lambda name: int(name[1:]))


def measure(wanted: list[str]) -> list[Row]:
    """The rows of the wanted ids, in their order."""
    rows = [row for name in wanted for call in WITHOUT_SUBJECT.get(name, ()) for row in call()]
    if any(name in WITH_SUBJECT for name in wanted):
        for subject in subjects():
            calls = dict.fromkeys(call for name in wanted for call in WITH_SUBJECT.get(name, ()))
            rows += [row for call in calls for row in call(subject)]
    return sorted((row for row in rows if row.id in wanted), key=lambda row: IDS.index(row.id))


def main() -> None:
    """See the top of the file."""
    wanted = sys.argv[2:] or IDS
    if len(sys.argv) < 2 or not set(wanted) <= set(IDS):
        raise SystemExit(f"{__doc__}\nIds: {', '.join(IDS)}")
    rows = measure(wanted)
    print(table(rows))
    write(rows, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
