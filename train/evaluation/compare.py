"""Two runs on the same questions: differences, paired tests, and whether a model looks at the picture at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed_core.errors import DataError
from unibiomed_core.metrics.statistics import case_interval, paired_t

from . import mask_scores, text_scores
from .mask_scores import MaskScore
from .prediction_files import ANSWER_FILE
from .tables import number, read_run
from .text_scores import AnswerScore

SIGNIFICANT = 0.05

Measured = dict[tuple[str, ...], tuple[str, str, float]]
"""Question -> (data set, case, value)."""


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Every measure that both scored folders have: means, difference, P value of the two-sided paired t-test.

    The pairs are cases (patients): the mean over a case's questions in one run against that in the other. Questions
    that only one of the runs was asked are counted and left out.

    Raises:
        DataError: A folder was not scored, or the runs share no question.
    """
    table: dict[str, Any] = {"first": _name(first), "second": _name(second), "measures": []}
    for measure, a, b in _measures(first, second):
        common = sorted(a.keys() & b.keys())
        if common:
            table["measures"].append(_row(measure, "all", a, b, common))
            sets = sorted({a[key][0] for key in common})
            for dataset in sets if len(sets) > 1 else ():
                table["measures"].append(_row(measure, dataset, a, b, [k for k in common if a[k][0] == dataset]))
    if not table["measures"]:
        raise DataError("Nothing to compare", f"{first.name} and {second.name} share no question", "the same records")
    asked = {read_run(folder).get("records_sha256") for folder in (first, second)} - {None}
    if len(asked) > 1:
        table["other_records"] = True
    images = [read_run(folder).get("image", "as is") for folder in (first, second)]
    if sorted(images) == ["as is", "noise"]:
        table["ablation"] = ablation_words(table["measures"], noise_first=images[0] == "noise")
    return table


def _name(folder: Path) -> str:
    image = read_run(folder).get("image", "as is")
    return folder.name if image == "as is" else f"{folder.name} ({image} in place of pictures)"


def _measures(first: Path, second: Path) -> Iterator[tuple[str, Measured, Measured]]:
    masks = (mask_scores.read_scores(first), mask_scores.read_scores(second))
    for name, shown_only, value in MASK_MEASURES:
        yield name, _of_masks(masks[0], shown_only, value), _of_masks(masks[1], shown_only, value)
    if not all((folder / ANSWER_FILE).is_file() for folder in (first, second)):
        return
    answers = (text_scores.read_scores(first), text_scores.read_scores(second))
    for tasks, name, measured in ANSWER_MEASURES:
        for task in tasks:
            yield f"{task}, {name}", _of_answers(answers[0], task, measured), _of_answers(answers[1], task, measured)


MASK_MEASURES: tuple[tuple[str, bool, Callable[[MaskScore], float]], ...] = (
    ("Dice", True, lambda s: s.dice),
    ("Dice with empty", False, lambda s: s.dice),
    ("presence accuracy", False, lambda s: float(s.marked == s.present)),
)
"""Name, whether only pictures that show the target count, value."""

ANSWER_MEASURES: tuple[tuple[tuple[str, ...], str, Callable[[AnswerScore], float]], ...] = (
    (text_scores.NAMED, "accuracy", lambda s: float(s.right)),
    (text_scores.TOLD, "ROUGE-L", lambda s: s.rouge_l),
)
"""Tasks, name, value."""


def _of_masks(found: Iterable[MaskScore], shown_only: bool, value: Callable[[MaskScore], float]) -> Measured:
    return {(s.id, s.target): (s.dataset, s.case, value(s)) for s in found if s.present or not shown_only}


def _of_answers(found: Iterable[AnswerScore], task: str, value: Callable[[AnswerScore], float]) -> Measured:
    asked: Measured = {}
    turn: dict[str, int] = defaultdict(int)
    for s in found:
        if s.task == task:
            asked[s.id, str(turn[s.id])] = (s.dataset, s.case, value(s))  # a picture may have several questions
            turn[s.id] += 1
    return asked


def _row(measure: str, dataset: str, a: Measured, b: Measured, common: list[tuple[str, ...]]) -> dict[str, Any]:
    cases: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key in common:
        cases[a[key][1]].append((a[key][2], b[key][2]))
    pairs = np.array([np.mean(found, axis=0) for found in cases.values()])  # (cases, 2)
    both = np.array([(a[key][2], b[key][2]) for key in common])
    return {
        "measure": measure,
        "dataset": dataset,
        "questions": len(common),
        "unmatched": len(a) + len(b) - 2 * len(common) if dataset == "all" else 0,
        "cases": len(pairs),
        "first": float(both[:, 0].mean()),
        "second": float(both[:, 1].mean()),
        "difference": float((both[:, 1] - both[:, 0]).mean()),
        "difference_interval": case_interval(both[:, 1] - both[:, 0], [a[key][1] for key in common]),
        "p": paired_t(pairs[:, 0], pairs[:, 1]),
    }


def ablation_words(measures: Iterable[Mapping[str, Any]], noise_first: bool) -> list[str]:
    """What the numbers with noise in place of the pictures say, in sentences."""
    lines = []
    for row in measures:
        if row["dataset"] != "all" or row["measure"] == "Dice with empty":
            continue
        seen, noise = (row["second"], row["first"]) if noise_first else (row["first"], row["second"])
        numbers = f"{number(seen)} with the picture, {number(noise)} with noise in its place (P {p_words(row['p'])})"
        looks = seen > noise and row["p"] < SIGNIFICANT
        verdict = "the model looks at the picture" if looks else "the picture is not shown to matter"
        lines.append(f"{row['measure']}: {numbers}: {verdict}.")
    return lines


def p_words(p: float) -> str:
    return "cannot be told" if np.isnan(p) else "< 0.0001" if p < 1e-4 else f"= {p:.4f}"


def markdown(table: Mapping[str, Any], command: str) -> str:
    """The comparison as a table, and the sentences on the ablation where one of the runs saw noise."""
    lines = [
        "# Comparison", "", f"`{command}`", "",
        f"A: {table['first']}. B: {table['second']}. Two-sided paired t-test over cases (patients); intervals from a "
        "bootstrap of cases. Questions of only one run are left out.", "",
        "| measure | data set | questions (unmatched) | cases | A | B | B - A (95 % interval) | P |",
        "|---" * 8 + "|",
    ]  # fmt: skip
    for r in table["measures"]:
        low, high = r["difference_interval"]
        bounds = "-" if np.isnan(low) else f"{low:+.3f} to {high:+.3f}"
        lines.append(
            f"| {r['measure']} | {r['dataset']} | {r['questions']} ({r['unmatched']}) | {r['cases']} | "
            f"{number(r['first'])} | {number(r['second'])} | {r['difference']:+.3f} ({bounds}) | "
            f"{p_words(r['p'])} |"
        )
    if table.get("other_records"):
        lines += ["", "The two were asked about different files of records: what one of them calls right may differ."]
    if "ablation" in table:
        lines += ["", "## Does the model look?", "", *(f"- {line}" for line in table["ablation"])]
    return "\n".join(lines)
