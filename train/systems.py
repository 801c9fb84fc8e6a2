"""Several systems in one table: ours, an earlier model, a plain network; over what all of them were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.baselines import Key
from train.scorecard import Table, number
from train.scores import macro, mean


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
