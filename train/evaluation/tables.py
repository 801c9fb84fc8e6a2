"""The tables of one run as Markdown, with the rule of every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed_core.errors import DataError
from unibiomed_core.files import read_json
from unibiomed_core.metrics.statistics import mean

from ..commands import as_called
from .baselines import Key
from .mask_scores import macro
from .prediction_files import with_nan

TABLE_FILE, RUN_FILE = "table.json", "run.json"

Table = Mapping[str, Any]


def failures(row: Mapping[str, Any]) -> list[str]:
    """Which trivial baselines a row does not beat; presence counts where present and absent pictures both occur."""
    found = []
    if row["present"] and not row["dice"] > max(row["dice_empty_mask"], np.nan_to_num(row["dice_mean_shape"])):
        found.append("fails: Dice")
    if row["present"] and row["absent"] and not row["presence_accuracy"] > row["presence_majority"]:
        found.append("fails: presence")
    return found


def markdown(table: Table, run: Mapping[str, Any] | None = None) -> str:
    """The tables of one run; a row that does not beat its trivial baseline is named as failing.

    Args:
        table: As ``train.evaluation.mask_scores.score`` gives it.
        run: What was run (``run.json``), for the heading.
    """
    parts = [
        _heading(run or {}),
        _summary(table["summary"]),
        _masks(table["masks"]),
        _volumes(table["masks"]),
        _answers(table["answers"]),
        _grounded(table.get("grounded", ())),
        _texts(table["texts"]),
        "## Rules\n\n"
        + "\n".join(f"- **{n}**: {r}." for n, r in {**table["rules"], **table.get("word_rules", {})}.items()),
    ]
    return "\n\n".join(part for part in parts if part)


def _heading(run: Mapping[str, Any]) -> str:
    lines = ["# Scorecard"]
    if run:
        lines += ["", f"`{run['command']}`", "", f"Model {run['model']}, records {run['records_sha256'][:12]}."]
        if run["image"] != "as is":
            lines += [f"**Every picture was replaced by {run['image']}.**"]
        if run["limit"]:
            lines += [f"**{run['limit']} evenly spaced records only.**"]
        if not run["complete"]:
            lines += ["**Stopped early: what was predicted until then is scored.**"]
        lines += [f"{count} questions left out: {why}." for why, count in run["left_out"].items()]
    return "\n".join(lines)


def _summary(found: Mapping[str, Any]) -> str:
    rows = [
        ("macro Dice over data sets", "macro_dice"),
        ("macro Dice, with empty slices", "macro_dice_with_empty"),
        ("macro Dice of the mean shape", "macro_dice_mean_shape"),
        ("macro IoU", "macro_iou"),
        ("macro surface Dice", "macro_surface_dice"),
        ("macro volume Dice", "macro_volume_dice"),
        (f"presence AUC, macro over {found['presence_auc_targets']} targets", "presence_auc_macro"),
        ("presence AUC, pooled", "presence_auc_pooled"),
        ("macro presence accuracy", "macro_presence_accuracy"),
    ]
    lines = [f"| {found['pictures']} pictures of {found['datasets']} data sets | | 95 % interval |", "|---|---|---|"]
    return "\n".join(
        [*lines, *(f"| {n} | {number(found[k])} | {interval(found.get(f'{k}_interval'))} |" for n, k in rows)]
    )


def _masks(rows: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "| data set | target | present / absent | Dice (95 % interval) | mean shape | Dice with empty | nothing marked "
        "| IoU | surface Dice | HD95 (of) | presence accuracy | majority | AUC | |"
    )
    found = []
    for row in rows:
        found.append(
            f"| {row['dataset']} ({row['modality']}) | {row['target']} | {row['present']} / {row['absent']} | "
            f"{number(row['dice'])} ({interval(row['dice_interval'])}) | {number(row['dice_mean_shape'])} | "
            f"{number(row['dice_with_empty'])} | {number(row['dice_with_empty_empty_mask'])} | {number(row['iou'])} | "
            f"{number(row['surface_dice'])} | {number(row['hausdorff_95'], 1)} {row['unit']} "
            f"({row['hausdorff_95_count']}) | {number(row['presence_accuracy'])} | "
            f"{number(row['presence_majority'])} | {number(row['presence_auc'])} | {'; '.join(failures(row))} |"
        )
    return table_part("Masks, picture by picture", head, found)


def table_part(title: str, head: str, rows: Sequence[str]) -> str:
    """A table under its title; nothing where it has no row."""
    rule = "|---" * (head.count("|") - 1) + "|"
    return "\n".join([f"## {title}", "", head, rule, *rows]) if rows else ""


def _volumes(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "| data set | target | volumes | Dice (95 % interval) | Dice, shown slices | surface Dice |"
    found = [
        f"| {r['dataset']} ({r['modality']}) | {r['target']} | {r['volumes']} | {number(r['volume_dice'])} "
        f"({interval(r['volume_dice_interval'])}) | {number(r['volume_dice_shown'])} | "
        f"{number(r['volume_surface_dice'])} |"
        for r in rows
        if r["volumes"]
    ]
    return table_part("Volumes", head, found)


def _answers(rows: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "| task | modality | questions | accuracy (95 % interval) | as published (left out) | majority class "
        "| of all | |"
    )
    found = []
    for row in rows:
        fails = "" if row["accuracy"] > row["majority"] else "fails"
        published = number(row["accuracy_published"])
        left_out = f" ({row['published_left_out']})" if published != "-" else ""
        found.append(
            f"| {row['task']} | {row['modality']} | {row['count']} | {number(row['accuracy'])} "
            f"({interval(row['accuracy_interval'])}) | {published}{left_out} | "
            f'{number(row["majority"])} ("{row["majority_answer"]}") | {number(row["majority_overall"])} | {fails} |'
        )
    return table_part("Answers that are right or wrong", head, found)


def _grounded(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "| task | modality | pictures | Dice of findings (95 % interval) | as published (left out) |"
    found = [
        f"| {r['task']} | {r['modality']} | {r['count']} | {number(r['dice'])} ({interval(r['dice_interval'])}) | "
        f"{number(r['dice_published'])} ({r['published_left_out']}) |"
        for r in rows
    ]
    return table_part("Masks that come with words", head, found)


def _texts(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "| task | modality | how | items | BLEU-1 | BLEU-2 | BLEU-3 | BLEU-4 | METEOR | ROUGE-L | |"
    found = []
    hows = {"published": "as published", "nothing_dropped": "nothing dropped", "copied": "commonest text, copied"}
    for row in rows:
        for key, how in hows.items():
            part = row[key]
            bleus = " | ".join(number(b) for b in part["bleu"])
            meteor, rouge = (
                number(part[m]) + (f" ({interval(part[f'{m}_interval'])})" if f"{m}_interval" in part else "")
                for m in ("meteor", "rouge_l")
            )
            beats = row["nothing_dropped"]["rouge_l"] > row["copied"]["rouge_l"]
            fails = "fails" if key == "nothing_dropped" and not beats else ""
            found.append(
                f"| {row['task']} | {row['modality']} | {how} | {part.get('count', '')} | {bleus} | {meteor} | "
                f"{rouge} | {fails} |"
            )
    return table_part("Texts", head, found)


def number(value: float, digits: int = 2) -> str:
    """A number of a table; "-" where there is none."""
    return "-" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def interval(bounds: Sequence[float] | None) -> str:
    if not bounds:
        return ""
    return f"{number(bounds[0])} to {number(bounds[1])}" if bounds[0] == bounds[0] else "-"


def read_table(folder: Path) -> dict[str, Any]:
    """The table of a scored folder.

    Raises:
        DataError: It was not scored, or the file is none of ours.
    """
    wanted = f"a scored folder; '{as_called('python train/evaluate.py score')}' makes one"
    found: dict[str, Any] = with_nan(read_json(folder / TABLE_FILE, DataError, f"No scores in {folder}", wanted))
    return found


def read_run(folder: Path) -> dict[str, Any]:
    """What was run; empty for a folder of another system, which need not say.

    Raises:
        DataError: It says something that is no JSON object.
    """
    file = folder / RUN_FILE
    found = read_json(file, DataError, f"Run of {folder} cannot be read") if file.is_file() else {}
    if not isinstance(found, dict):
        raise DataError(f"Run of {folder} cannot be read", f"{file.name} is a {type(found).__name__}", "an object")
    return found


def joined(tables: Mapping[str, Table]) -> dict[str, Any]:
    """Several systems in one table: Dice and AUC of each target, and macro numbers over what all of them were asked.

    Args:
        tables: Name of the system -> its table; the first one is ours.
    """
    keyed = {name: _keyed(table) for name, table in tables.items()}
    every = sorted({key for rows in keyed.values() for key in rows})
    common = _common(keyed)
    numbers = ("dice", "dice_with_empty", "surface_dice", "presence_accuracy", "presence_auc")
    return {
        "systems": list(tables),
        "targets": [
            {
                "dataset": key[0],
                "modality": key[1],
                "target": key[2],
                **{n: {name: rows[key][n] if key in rows else None for name, rows in keyed.items()} for n in numbers},
                "mean_shape": next(rows[key]["dice_mean_shape"] for rows in keyed.values() if key in rows),
            }
            for key in every
        ],
        "common_targets": len(common),
        "macro": {
            name: {n: _macro_of(rows, _with(keyed, common, n), n) for n in (*numbers, "dice_mean_shape")}
            for name, rows in keyed.items()
        },
        "answers": _joined_answers(tables),
    }


def _keyed(table: Table) -> dict[Key, Table]:
    return {(row["dataset"], row["modality"], row["target"]): row for row in table["masks"]}


def _common(keyed: Mapping[str, Mapping[Key, Table]]) -> list[Key]:
    return sorted(set.intersection(*(set(rows) for rows in keyed.values())))


def shared_rows(tables: Mapping[str, Table]) -> dict[str, list[Table]]:
    """Each system's rows of the targets that all of them were asked."""
    keyed = {name: _keyed(table) for name, table in tables.items()}
    return {name: [rows[key] for key in _common(keyed)] for name, rows in keyed.items()}


def _with(keyed: Mapping[str, Mapping[Key, Table]], common: Sequence[Key], name: str) -> list[Key]:
    """The targets for which every system has a number."""
    return [key for key in common if not any(np.isnan(rows[key][name]) for rows in keyed.values())]


def _macro_of(rows: Mapping[Key, Table], keys: Sequence[Key], name: str) -> float:
    if name == "presence_auc":
        return mean(rows[key][name] for key in keys)
    return macro([rows[key] for key in keys], name)


def _joined_answers(tables: Mapping[str, Table]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        for row in table["answers"]:
            if row["modality"] == "all":
                entry = found.setdefault(
                    f"{row['task']}, accuracy", {"trivial": row["majority"], "count": row["count"]}
                )
                entry[name] = row["accuracy"]
        for row in table["texts"]:
            if row["modality"] == "all":
                part, copied = row["nothing_dropped"], row["copied"]
                entry = found.setdefault(
                    f"{row['task']}, ROUGE-L", {"trivial": copied["rouge_l"], "count": part["count"]}
                )
                entry[name] = part["rouge_l"]
    return [{"measure": measure, **entry} for measure, entry in found.items()]


def joined_markdown(table: Mapping[str, Any], command: str) -> str:
    """The table of :func:`joined`; the best number of a row is bold."""
    systems = table["systems"]
    head = " | ".join(systems)
    lines = ["# Scorecard", "", f"`{command}`", "", f"Over the {table['common_targets']} targets all were asked:", ""]
    lines += [f"| | {head} | mean shape |", "|---" * (len(systems) + 2) + "|"]
    labels = {
        "dice": "macro Dice (pictures that show the target)",
        "dice_with_empty": "macro Dice with empty (nothing dropped; both empty = 1)",
        "surface_dice": "macro surface Dice (2 mm, or 2 pixels)",
        "presence_accuracy": "macro presence accuracy",
        "presence_auc": "presence AUC, macro over targets",
    }
    for key, label in labels.items():
        shape = number(table["macro"][systems[0]]["dice_mean_shape"]) if key == "dice" else ""
        lines.append(f"| {label} | {_best([table['macro'][s][key] for s in systems])} | {shape} |")
    lines += ["", f"| data set | target | {head} | mean shape |", "|---" * (len(systems) + 3) + "|"]
    for row in table["targets"]:
        lines.append(
            f"| {row['dataset']} ({row['modality']}) | {row['target']} | {_best([row['dice'][s] for s in systems])} | "
            f"{number(row['mean_shape'])} |"
        )
    if table["answers"]:
        lines += ["", f"| | questions | {head} | trivial answer |", "|---" * (len(systems) + 3) + "|"]
        for row in table["answers"]:
            values = _best([row.get(s) for s in systems])
            lines.append(f"| {row['measure']} | {row['count']} | {values} | {number(row['trivial'])} |")
    lines += ["", "Macro: mean over the targets of a data set, then over data sets. Dice below: pictures that show it."]
    return "\n".join(lines)


def _best(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None and not np.isnan(v)]
    best = max(known) if len(set(known)) > 1 else None
    return " | ".join("-" if v is None else f"**{number(v)}**" if v == best else number(v) for v in values)
