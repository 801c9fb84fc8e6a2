"""Whole reports of test items, as a user gets them: made and kept line by line, then scored, told and shown."""

from __future__ import annotations

import html
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import unibiomed_core
from unibiomed_core import io
from unibiomed_core import report as report_records
from unibiomed_core.engine.engine import Engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import ConfigError, DataError, UniBiomedError
from unibiomed_core.files import check_free, claimed, replaced_file
from unibiomed_core.io.export import write
from unibiomed_core.modalities import choose_window
from unibiomed_core.types import Report, Volume
from unibiomed_core.updates import Done

from ..config import named_value
from ..datasets.volumes import UNREADABLE
from .prediction_files import Row, objects, to_json, write_rows
from .report_cases import Case, cases, truth_of
from .report_scores import ReportScore, failed, score
from .report_summary import summary
from .report_table import markdown
from .tables import RUN_FILE, read_run

REPORT_FILE, SCORE_FILE, SHEET = "reports.jsonl", "report_scores.jsonl", "sheet"

MODALITIES = ("recognised", "told")
"""How an item's modality comes into its report: said by who opens the file, or found by the engine."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class ReportSettings:
    """What ``name=value`` changes.

    Args:
        limit: Evenly spaced test items of each data set; 0 takes all.
        modality: A word of ``MODALITIES``.
    """

    limit: int = 0
    modality: str = MODALITIES[0]


def settings(arguments: Sequence[str]) -> ReportSettings:
    """The settings of a command line.

    Raises:
        ConfigError: A name is unknown or a value does not fit.
    """
    found = ReportSettings()
    for argument in arguments:
        name, value = named_value(argument)
        if name == "limit" and value.isdecimal():
            found = replace(found, limit=int(value))
        elif name == "modality" and value in MODALITIES:
            found = replace(found, modality=value)
        else:
            expected = f"limit=N (a whole number) or modality={'|'.join(MODALITIES)}"
            raise ConfigError("Unknown setting", f"'{argument}'", expected)
    return found


def evaluate(model: str, data: Path, out: Path, chosen: ReportSettings, command: str, say: Say) -> str:
    """Report on the test items of data sets, score the reports, and write table and sheet.

    Items that have a line in ``reports.jsonl`` are not reported on again, so that a run that was stopped or killed
    goes on, and one that was finished is scored anew.

    Returns:
        The table as Markdown.

    Raises:
        UniBiomedError: Model or data cannot be used, or the folder holds another evaluation.
        KeyboardInterrupt: The user stopped; whole lines of what was reported on stay.
    """
    check_free(out, ())
    picked = cases(data, chosen.limit)
    engine = Engine.load(model)
    run: dict[str, Any] = {
        "command": command,
        "kind": "report",
        "version": unibiomed_core.__version__,
        "model": f"{engine.info.name}, weights {engine.info.sha256[:12]}",
        "weights_sha256": engine.info.sha256,
        **asdict(chosen),
        "items": len(picked),
    }
    with claimed(out):
        _check_same_run(out, run)
        out.mkdir(parents=True, exist_ok=True)
        _write(out / RUN_FILE, to_json({**run, "complete": False}, indent=1))
        _make(engine, picked, out, chosen.modality, say)
        table = scored(out, picked, chosen.modality, say)
        _write(out / RUN_FILE, to_json({**run, "left_out": table["left_out"], "complete": True}, indent=1))
        text = markdown(table, run)
        _write(out / "table.json", to_json(table, indent=1))
        _write(out / "table.md", text + "\n")
    return text


def _check_same_run(out: Path, run: Row) -> None:
    """Refuse a folder with reports of another model or version, or with another kind of evaluation."""
    before = read_run(out)
    if not before:
        return
    for name, what in (
        ("kind", "kind of evaluation"),
        ("weights_sha256", "model"),
        ("version", "version"),
        ("modality", "way to the modality"),
    ):
        if before.get(name) != run[name]:
            raise DataError(
                f"Folder with another {what}",
                f"{out} has {str(before.get(name, 'masks'))[:12]}, this is {run[name][:12]}",
                "an empty folder, or one of this evaluation",
                "Choose another output folder.",
            )


def _read(case: Case, modality: str) -> Volume:
    """The image as a user opens it, who has to tell the modality of a volume whose file does not.

    Returns:
        Of no modality yet where the engine is to recognise it.

    Raises:
        UniBiomedError: It cannot be read.
    """
    recognised = modality == "recognised" and "shape" not in case.item
    return io.read(case.image, "" if recognised else case.modality, undecided=recognised)


def _make(engine: Engine, picked: Sequence[Case], out: Path, modality: str, say: Say) -> None:
    """A line in ``reports.jsonl`` for each item that has none."""
    file = out / REPORT_FILE
    _cut_torn_line(file)
    known = {row["id"] for row in objects(file, ("id",))} if file.is_file() else set()
    missing = [case for case in picked if case.id not in known]
    if len(missing) < len(picked):
        say(f"{len(picked) - len(missing)} of {len(picked)} items have a report already")
    began = time.monotonic()
    with file.open("a", encoding="utf-8") as lines:
        for number, case in enumerate(missing, 1):
            lines.write(json.dumps(_line(engine, case, modality)) + "\n")
            lines.flush()
            each = (time.monotonic() - began) / number
            left = each * (len(missing) - number)
            say(f"{number} of {len(missing)}: {case.id} ({each:.1f} s each, {left:.0f} s left)")


def _line(engine: Engine, case: Case, modality: str) -> Row:
    """The report of an item, or why there is none."""
    try:
        volume = _read(case, modality)
    except UNREADABLE as error:
        return {"id": case.id, "error": str(error)}
    try:
        volume = engine.with_modality(volume)
        # Words are not measured here; the sheet shows them.
        request = RunRequest(plane=volume.default_plane, describe=case.first)
        report = next(u.report for u in engine.run(volume, request) if isinstance(u, Done))
    except UniBiomedError as error:
        return {"id": case.id, "error": str(error), "modality": volume.modality}
    finally:
        engine.free()
    # Where the files lie is nothing of the report.
    report = replace(report, image={**report.image, "source": case.image.name})
    return {"id": case.id, "report": report_records.to_json(report)}


def _cut_torn_line(file: Path) -> None:
    """Cut what a killed process left of a line without its end."""
    if file.is_file():
        whole = file.read_bytes().rfind(b"\n") + 1
        if whole < file.stat().st_size:
            os.truncate(file, whole)


def scored(out: Path, picked: Sequence[Case], modality: str, say: Say) -> dict[str, Any]:
    """Numbers of the reports that a folder holds, and the sheet of its first ones; returns the table.

    Raises:
        DataError: A line of the reports is damaged, or a data set is not what it was.
    """
    wanted = {case.id: case for case in picked}
    found: dict[str, ReportScore] = {}
    failures: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for row in objects(out / REPORT_FILE, ("id",)):
        case = wanted.get(row["id"])
        if case is None:
            continue
        try:
            volume = _read(case, modality)
            truth = truth_of(case, volume)
        except UNREADABLE as error:
            left_out[str(error).replace(str(case.item["id"]), "...")] += 1
            continue
        if "error" in row:
            failures[case.id] = row["error"]
            right = None if volume.modality or not case.modality else row["modality"] == case.modality
            found[case.id] = failed(truth, case, not volume.is_2d, right)
            continue
        report = report_records.from_json(row["report"])
        found[case.id] = score(report, truth, case)
        if case.first:
            _show(report, replace(volume, modality=report.image["modality"]), case, out / SHEET)
    in_order = [found[case.id] for case in picked if case.id in found]
    if not in_order:
        raise DataError("No item could be read", "; ".join(left_out) or "no report", "images that can be read")
    write_rows(out / SCORE_FILE, (asdict(s) for s in in_order))
    _write_index(out / SHEET, [case for case in picked if case.first and case.id in found])
    say(f"{len(in_order)} reports scored")
    return {**summary(in_order), "failures": failures, "left_out": dict(left_out)}


def _show(report: Report, volume: Volume, case: Case, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    write(report, volume, choose_window(volume), folder / f"{case.dataset}.html", overwrite=True)


def _write_index(folder: Path, shown: Sequence[Case]) -> None:
    """A page with a link to each whole report of the sheet."""
    links = (f'<li><a href="{_quoted(c)}.html">{html.escape(c.id)}</a></li>' for c in shown)
    head = "<!doctype html><meta charset='utf-8'><title>Reports</title><h1>Reports</h1>"
    why = "<p>The first test item of each data set by name, whatever its report is like.</p>"
    if shown:
        _write(folder / "index.html", f"{head}{why}<ul>{''.join(links)}</ul>\n")


def _quoted(case: Case) -> str:
    from urllib.parse import quote

    return quote(case.dataset)


def _write(file: Path, text: str) -> None:
    with replaced_file(file) as aside:
        aside.write_text(text, "utf-8")
