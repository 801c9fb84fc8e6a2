"""The table of scored reports as Markdown, with the rule of every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unibiomed_core.metrics.froc import FALSE_A_PICTURE

from .report_checks import CHECKS
from .report_summary import MEASURES
from .tables import interval, number, table_part

Table = Mapping[str, Any]

WIDE = ("f1", "precision", "recall", "dice", "rows", "false_rows", "foreign_rows", "single_rows", "count_error",
        "contradictory", "modality_right", "part_right")  # fmt: skip
"""Measures that every modality and data set is told by."""

SHORT = {
    "f1": "F1", "precision": "precision", "recall": "recall", "dice": "Dice", "rows": "rows a report",
    "false_rows": "false abnormal rows (normal)", "foreign_rows": "foreign rows", "single_rows": "rows a structure",
    "count_error": "count error", "contradictory": "contradictory", "modality_right": "modality",
    "part_right": "part of the body",
}  # fmt: skip

MOST_SHOWN = 3
"""Reports that are named as examples of a contradiction."""


def markdown(table: Table, run: Mapping[str, Any]) -> str:
    """The tables of one run.

    Args:
        table: As ``report_summary.summary`` gives it, with ``failures`` and ``left_out``.
        run: What was run (``run.json``), for the heading.
    """
    parts = [
        _heading(table, run),
        _measures(table),
        _wide("By modality", "modality", table),
        _wide("By data set", "set", table),
        _lesions(table["lesions"]),
        _calibration(table["calibration"]),
        _contradictions(table["contradictions"]),
        _targets(table["targets"]),
        "## Rules\n\n" + "\n".join(f"- **{name}**: {rule}." for name, rule in table["rules"].items()),
    ]
    return "\n\n".join(text for text in parts if text)


def _heading(table: Table, run: Mapping[str, Any]) -> str:
    lines = ["# Reports", "", f"`{run['command']}`", "", f"Model {run['model']}, version {run['version']}."]
    if run["limit"]:
        lines.append(f"**At most {run['limit']} evenly spaced items of each data set.**")
    if run["modality"] == "told":
        lines.append("The modality of each item was told; that it is right says nothing.")
    lines += [f"{count} items left out: {why}" for why, count in table["left_out"].items()]
    lines += [f"No report on {name}: {why}" for name, why in table["failures"].items()]
    return "\n".join(lines)


def _measures(table: Table) -> str:
    shown = [name for name in ("all", "pictures", "volumes") if name in table["groups"]]
    head = "| | " + " | ".join(f"{name} (95 % interval; over)" for name in shown) + " |"
    rows = ["| reports (patients) | " + " | ".join(_size(table["groups"][name]) for name in shown) + " |"]
    for key, (words, _) in MEASURES.items():
        cells = (_cell(table["groups"][name][key]) for name in shown)
        rows.append(f"| {words} | {' | '.join(cells)} |")
        if key == "f1":
            found = table["macro_f1"]
            value = f"{number(found['value'])} ({interval(found['interval'])})"
            rows.append(f"| macro F1 | {value} |{' |' * (len(shown) - 1)}")
    return table_part("In all", head, rows)


def _size(group: Mapping[str, Any]) -> str:
    return f"{group['reports']} ({group['cases']})"


def _cell(found: Mapping[str, Any]) -> str:
    return f"{number(found['value'])} ({interval(found['interval'])}; {found['of']:.0f})" if found["of"] else "-"


def _wide(title: str, kind: str, table: Table) -> str:
    head = f"| {kind} | reports (patients) | " + " | ".join(SHORT[key] for key in WIDE) + " |"
    rows = []
    for name, group in table["groups"].items():
        if name.startswith(f"{kind} "):
            cells = [number(group[key]["value"]) for key in WIDE]
            where = WIDE.index("false_rows")
            cells[where] += f" ({group['false_rows']['of']:.0f})" if group["false_rows"]["of"] else ""
            low = interval(group["f1"]["interval"])
            cells[0] += f" ({low})" if group["f1"]["of"] and low else ""
            rows.append(f"| {name.removeprefix(f'{kind} ')} | {_size(group)} | {' | '.join(cells)} |")
    return table_part(title, head, rows)


def _lesions(groups: Mapping[str, Mapping[str, Any]]) -> str:
    rates = [f"{rate:g}" for rate in FALSE_A_PICTURE]
    head = "| | reports | lesions | mean | " + " | ".join(f"at {rate}" for rate in rates) + " | all rows | false rows |"
    rows = []
    for name, found in groups.items():
        mean = number(found["mean"])
        if "mean_interval" in found:
            mean += f" ({interval(found['mean_interval'])})"
        cells = " | ".join(number(value) for value in found["sensitivity"].values())
        rows.append(
            f"| {name} | {found['reports']} | {found['lesions']} | {mean} | {cells} | {number(found['all_rows'])} | "
            f"{number(found['false_rows'])} |"
        )
    return table_part("Lesions: sensitivity at false rows a report (FROC)", head, rows)


def _calibration(found: Mapping[str, Any]) -> str:
    kinds = {"annotated": "annotated targets", "with_foreign": "annotated and foreign targets"}
    head = "| stated | " + " | ".join(f"{words} | mean stated | share there" for words in kinds.values()) + " |"
    rows = []
    for bins in zip(*(found[kind]["bins"] for kind in kinds), strict=True):
        cells = (f"{b['count']} | {number(b['stated'])} | {number(b['found'])}" for b in bins)
        rows.append(f"| {bins[0]['low']:.1f} to {bins[0]['high']:.1f} | {' | '.join(cells)} |")
    lines = [
        f"Expected calibration error of {words}: {number(own['error'], 3)} ({interval(own['error_interval'])}), Brier "
        f"score {number(own['brier'], 3)}, over {own['cases']} of which {own['present']} are there."
        for kind, words in kinds.items()
        if (own := found[kind])["cases"]
    ]
    more = f"{found['not_mentioned']} annotated targets are not mentioned."
    return "\n".join([table_part("Presence", head, rows), "", *lines, more])


def _contradictions(found: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"| {CHECKS[row['code']][0]} | {row['count']} | {len(row['reports'])} | "
        f"{', '.join(row['reports'][:MOST_SHOWN])} |"
        for row in found
    ]
    return table_part("Contradictions", "| what | how often | reports | such as |", rows) or "No contradictions."


def _targets(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "| data set | target | found, of those there | found, of those absent | Dice |"
    lines = [
        f"| {r['dataset']} ({r['modality']}) | {r['target']} | {r['found']} of {r['present']} | "
        f"{r['false']} of {r['absent']} | {number(r['dice'])} |"
        for r in rows
    ]
    return table_part("Target by target", head, lines)
