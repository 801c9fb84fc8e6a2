"""python train/prepare.py DATASET SOURCE OUT [name=value ...]: a data set to records, with a summary of what and why.

DATASET is a name of ``train/datasets/registry.json``, a layout of ``train/datasets/layouts.py``, or "auto". OUT gets
``train.parquet``, ``test.parquet`` and ``summary.json``. One pass; memory does not grow with the pictures.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    # Run as a file: the repository takes the place of this folder, whose "datasets" would hide the library's.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    __package__ = "train"

from unibiomed_core.errors import ConfigError, DataError, UniBiomedError, WriteError

from .commands import as_called
from .data.counts import RecordCounts, summary_of, summary_text
from .data.leakage import LeakageCheck
from .data.records import Record, RecordWriter
from .datasets.notes import note_lines, noted
from .datasets.registry import entry, nearest, registry
from .datasets.request import ConversionRequest, Summary, held_out_by_count
from .datasets.settings import SETTINGS, read_settings

MOST_REFUSED = 0.02
"""Share of items that may be refused before the conversion is an error."""

NAMED_REFUSALS = 3
"""Refused items that an error names."""

SAY_EVERY = 1000
"""Records between two lines of progress."""

SPLITS = ("train", "test")


def main(arguments: Sequence[str]) -> int:
    """Prepare one data set; returns the exit status."""
    asked = bool(arguments) and arguments[0] in {"-h", "--help"}
    if asked or len(arguments) < 3:
        _say(f"{as_called(__doc__)}\nSettings: {', '.join(f'{name}=' for name in SETTINGS)}")
        return 0 if asked else 2
    dataset, source, out, *settings = arguments
    try:
        layout, job = job_of(dataset, Path(source), settings)
        summary = write_records(layout, job, Path(out), _say)
    except UniBiomedError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 1
    _say(summary_text(summary))
    _say_notes(summary, _say)
    return 0


def prepare(root: Path, out: Path, side: int, say: Callable[[str], None], settings: Sequence[str] = ()) -> None:
    """A folder in a layout that is recognised, to ``train.parquet``, ``test.parquet`` and ``summary.json``.

    Args:
        root: A data set, or a folder of folders with a ``dataset.json`` each.
        side: Side of the pictures in pixels; 0 keeps the source's own size.
        settings: ``name=value`` each, see :data:`SETTINGS`.

    Raises:
        DataError: Unknown layout, empty split, leakage between the splits, or too much refused.
        WriteError: The disk is full or ``out`` cannot be written.
    """
    layout, job = job_of("auto", root, [f"side={side}", *settings])
    summary = write_records(layout, job, out, say)
    splits = summary["splits"]
    _say_notes(summary, say)
    say(f"{splits['train']} training and {splits['test']} test records, {summary['refused_count']} refused")


def job_of(dataset: str, source: Path, settings: Sequence[str]) -> tuple[str, ConversionRequest]:
    """The layout and the job of a command's words.

    Args:
        dataset: A registry name, a layout name or "auto".
        settings: ``name=value`` each, see :data:`SETTINGS`; they win over the registry's row.

    Raises:
        ConfigError: A name is unknown (the nearest are offered), a value has another type, or no converter fits.
        DataError: "auto" finds no layout that fits the folder, or there is no such folder.
    """
    from .datasets.layouts import LAYOUTS, detect

    if not source.is_dir():
        raise DataError("Data folder not found", f"there is no folder {source}", "the folder of the data set")
    values: dict[str, Any] = {"dataset": source.resolve().name}
    if dataset == "auto":
        layout = detect(source)
    elif dataset in LAYOUTS:
        layout = dataset
    elif dataset in registry():
        layout, row = _from_registry(dataset, source)
        values |= row
    else:
        near = nearest(dataset, dict.fromkeys([*registry(), *LAYOUTS, "auto"]))
        raise ConfigError("Unknown data set", f"'{dataset}'", f"nearest: {', '.join(near[:5])}")
    return layout, ConversionRequest(source=source, **(values | read_settings(settings)))


def _from_registry(name: str, source: Path) -> tuple[str, dict[str, Any]]:
    from .datasets.layouts import LAYOUTS

    row = entry(name)
    layout = row.converter or row.after
    if row.converter is None and not LAYOUTS[layout].fits(source):
        raise ConfigError("No converter for this data set as it comes", f"{row.title}: {row.reason}")
    own = ("modality", "licence", "labels", "body", "findings_known", "step")
    return layout, {"dataset": row.name, **{name: getattr(row, name) for name in own}}


def write_records(layout: str, job: ConversionRequest, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Convert in one pass and write ``out`` only when everything is sound; returns the summary that was saved.

    Raises:
        DataError: The folder is not in the layout, all records in one split, leakage, or too much refused.
        WriteError: The disk is full or ``out`` cannot be written; what stood there before still stands.
    """
    say(f"{job.dataset}: {job.source} as {layout}")
    with _aside(out) as folder:
        refusals, counts, groups = _pass(layout, job, folder, say)
        if counts.total() and not all(map(counts.in_split, SPLITS)) and len(groups & job.undivided) > 1:
            # So small that no name fell into one of the splits: read again, which costs little then.
            held_out = held_out_by_count(job.dataset, groups & job.undivided)
            refusals, counts, _ = _pass(layout, replace(job, held_out=held_out), folder, say)
            refusals.note("split_by_count", f"{len(held_out)} of {len(groups & job.undivided)}")
        _check_splits(counts, groups)
        summary = summary_of(counts, refusals.refused, noted(refusals))
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    return summary


def _pass(
    layout: str, job: ConversionRequest, folder: Path, say: Callable[[str], None]
) -> tuple[Summary, RecordCounts, set[str]]:
    """Every record once, into files in ``folder``; also gives the groups that have records."""
    refusals, counts, leakage, groups = Summary(), RecordCounts(), LeakageCheck(), set[str]()
    with ExitStack() as open_files:
        writers = {s: open_files.enter_context(RecordWriter(folder / f"{s}.parquet")) for s in SPLITS}
        for record in _converted(layout, job, refusals):
            _take(record, writers, counts, leakage)
            groups.add(record.group)
            if counts.total() % SAY_EVERY == 0:
                say(f"{counts.total()} records, {len(refusals.refused)} refused")
        _check_refused(refusals, counts)
        leakage.finish()
    return refusals, counts, groups


def _converted(layout: str, job: ConversionRequest, refusals: Summary) -> Iterator[Record]:
    from .datasets.layouts import LAYOUTS

    try:
        yield from LAYOUTS[layout].convert(job, refusals)
    except OSError as cause:
        raise DataError("Data cannot be read", f"{job.source}: {cause}", f"files of the layout {layout}") from cause


def _take(record: Record, writers: Mapping[str, RecordWriter], counts: RecordCounts, leakage: LeakageCheck) -> None:
    if record.split not in writers:
        raise DataError("Unknown split", f"{record.id} is in '{record.split}'", f"one of {', '.join(writers)}")
    leakage.add(record, record.split)
    counts.add(record)
    writers[record.split].add(record)


def _check_refused(refusals: Summary, counts: RecordCounts) -> None:
    refused, made = len(refusals.refused), counts.total()
    if refused > MOST_REFUSED * (refused + made):
        first = "; ".join(f"{item}: {reason}" for item, reason in refusals.refused[:NAMED_REFUSALS])
        raise DataError(
            "Too many items refused",
            f"{refused} beside {made} records, first {first}",
            f"at most {MOST_REFUSED:.0%} (MOST_REFUSED)",
            "Mend or remove these items.",
        )


def _check_splits(counts: RecordCounts, groups: set[str]) -> None:
    made, there = counts.total(), [split for split in SPLITS if counts.in_split(split)]
    if not made:
        raise DataError("No record", "nothing in the folder gave one", "pictures with masks or texts")
    if len(there) == len(SPLITS):
        return
    if len(groups) == 1:
        raise DataError(
            "Nothing to test with",
            f"all {made} records are of one patient or picture",
            "two at least, one to train on and one to test with",
        )
    lacking = next(split for split in SPLITS if split not in there)
    raise DataError(
        "All records in one split",
        f"the source puts all {made} into '{there[0]}'",
        f"some for '{lacking}'",
        f"Name a {lacking} split as the layout does, or leave every name of a split out: patients are divided then.",
    )


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder inside ``out`` whose files take their place there at the end; after any error nothing of it is left."""
    folder = out / "unfinished"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        for file in sorted(folder.iterdir()):
            file.replace(out / file.name)
    except OSError as cause:
        raise WriteError("Records not written", f"{out}: {cause}", "a folder with space") from cause
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _say_notes(summary: Mapping[str, Any], say: Callable[[str], None]) -> None:
    for line in note_lines(summary["notes"]):
        say(line)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
