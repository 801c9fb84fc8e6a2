"""Numbers from answer files: accuracies, text metrics and the masks that come with an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed_core.metrics import published
from unibiomed_core.metrics.overlap import dice
from unibiomed_core.metrics.statistics import case_interval, mean
from unibiomed_core.metrics.words import bleu, meteor, rouge_l

from .baselines import Baselines
from .prediction_files import ANSWER_FILE, ANSWER_VALUES, Row, decode, rows, write_rows

SCORE_FILE = "answer_scores.jsonl"

NAMED = ("roi_class", "disease", "grounded_vqa", "vqa_closed", "image_class", "vqa_open")
"""Tasks whose answer is right or wrong."""

TOLD = ("report", "roi_describe", "grounded_vqa", "vqa_open", "describe")
"""Tasks whose answer is compared word by word."""

RULES = {
    "accuracy": "every question counts; the whole answer equals one of its right answers, letter case and final stop "
    "aside. A region is named right by any target whose connected piece has its box; a disease by any annotated "
    'finding, "no findings" where there is none',
    "accuracy as published, disease": 'each finding with its full stop stands in the answer behind "[SEG]. "; pictures '
    "with another number of [SEG] than findings are left out",
    "accuracy as published, region": 'text before the first " in " equal with "left " and "right " removed, and the '
    "true last word inside the answer's last word; one right answer",
    "Dice of findings": "everything marked against everything annotated as a finding, every picture; 1 where both are "
    "empty, 0 where one is",
    "Dice of findings as published": "pictures of Dice 0 are left out of the mean; 1 where both are empty",
    "text as published": "marks in angle brackets and [SEG] removed, words in lower case without punctuation, items "
    "without a reference left out; corpus BLEU",
    "text, nothing dropped": "the same words, every item counts: an empty answer is 0, and so is an answer to an item "
    "without a reference unless it is empty, too",
    "METEOR": "exact and stem matches without synonyms, parameters of 2005; the published numbers use METEOR 1.5 with "
    "WordNet and are a little higher; the penalty for fragments makes a right answer of one word 0.5",
    "ROUGE-L": "longest common subsequence, beta 1.2, mean over items",
    "majority class": "the commonest training answer of the picture's modality (of its data set for the class of a "
    "picture), and of all pictures; for texts the commonest report or sentence, copied",
}


@dataclass(frozen=True)
class AnswerScore:
    """One answer against its truths.

    Args:
        right: Whether it is one of the right answers, by our rule.
        hits: By the published rule, each thing asked for; none where the rule leaves the picture out.
        majority_right: Whether the commonest training answer of the modality would have been right.
        overall_right: Whether the commonest training answer of all pictures would have been right.
        reference: What texts are compared with; ``said`` is the answer and ``usual`` the commonest training answer.
        dice: Of the marked findings; NaN where there are no masks.
    """

    id: str
    dataset: str
    modality: str
    task: str
    case: str
    right: bool
    hits: tuple[bool, ...]
    majority_right: bool
    overall_right: bool
    reference: str
    said: str
    usual: str
    meteor: float
    rouge_l: float
    dice: float


def score_words(out: Path, trivial: Baselines) -> dict[str, Any]:
    """``answers`` and ``texts``: one row for each task and modality, and one for each task as a whole.

    Both are empty where the folder has no answer file, as that of a system that only segments.
    """
    if not (out / ANSWER_FILE).is_file():
        return {"answers": [], "texts": []}
    overall = {task: trivial.answer_overall(task) for task in {*NAMED, *TOLD}}
    scores = [_scored(row, trivial, overall) for row in rows(out / ANSWER_FILE, ANSWER_VALUES)]
    write_rows(out / SCORE_FILE, (asdict(s) for s in scores))
    return {
        "answers": [_answer_row(t, m, found) for (t, m), found in _groups(scores, NAMED)],
        "texts": [_text_row(t, m, found) for (t, m), found in _groups(scores, TOLD)],
        "grounded": [
            _grounded_row(t, m, kept)
            for (t, m), found in _groups(scores, ("disease", "report", "grounded_vqa"))
            if (kept := [s for s in found if not np.isnan(s.dice)])
        ],
        "word_rules": dict(RULES),
    }


def read_scores(out: Path) -> list[AnswerScore]:
    """The scores that :func:`score_words` wrote.

    Raises:
        DataError: They are missing or not whole.
    """
    names = list(AnswerScore.__dataclass_fields__)
    return [AnswerScore(**row) for row in rows(out / SCORE_FILE, names)]


def _scored(row: Row, trivial: Baselines, overall: Mapping[str, str]) -> AnswerScore:
    truths, answer = [_plain(t) for t in row["truths"]], _plain(row["answer"])
    usual = trivial.answer(row["task"], row["dataset"], row["modality"])
    reference, said = row["truths"][0], published.clean(row["raw"])
    told = row["task"] in TOLD
    return AnswerScore(
        id=row["id"],
        dataset=row["dataset"],
        modality=row["modality"] or "unspecified",
        task=row["task"],
        case=f"{row['dataset']}/{row['group']}",
        right=answer in truths,
        hits=_hits(row),
        majority_right=_plain(usual) in truths,
        overall_right=_plain(overall[row["task"]]) in truths,
        reference=reference,
        said=said,
        usual=usual,
        meteor=meteor(said, reference) if told else float("nan"),
        rouge_l=rouge_l(said, reference) if told else float("nan"),
        dice=dice(decode(row["size"], row["mask"]), decode(row["size"], row["truth_mask"]))
        if "truth_mask" in row
        else float("nan"),
    )


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(". ")


def _hits(row: Row) -> tuple[bool, ...]:
    if row["task"] in {"disease", "grounded_vqa"}:
        found = published.disease_hits(row["raw"], row["truths"])
        return tuple(found or ())
    if row["task"] == "roi_class":
        return (published.roi_hit(row["answer"], row["truths"][0]),)
    return ()


def _groups(scores: Iterable[AnswerScore], tasks: Sequence[str]) -> list[tuple[tuple[str, str], list[AnswerScore]]]:
    found: dict[tuple[str, str], list[AnswerScore]] = defaultdict(list)
    for item in scores:
        if item.task in tasks:
            for name in ("all", item.modality):
                found[item.task, name].append(item)
    return sorted(found.items(), key=lambda pair: (tasks.index(pair[0][0]), pair[0][1] != "all", pair[0][1]))


def _answer_row(task: str, modality: str, scores: Sequence[AnswerScore]) -> dict[str, Any]:
    hits = [hit for s in scores for hit in s.hits]
    usual = sorted({s.usual for s in scores})
    return {
        "task": task,
        "modality": modality,
        "count": len(scores),
        "accuracy": mean(s.right for s in scores),
        "accuracy_interval": _interval(scores, lambda s: float(s.right)),
        "accuracy_published": mean(hits),
        "published_left_out": sum(not s.hits for s in scores) if hits else 0,
        "majority": mean(s.majority_right for s in scores),
        "majority_answer": usual[0] if len(usual) == 1 else "by modality",
        "majority_overall": mean(s.overall_right for s in scores),
    }


def _text_row(task: str, modality: str, scores: Sequence[AnswerScore]) -> dict[str, Any]:
    kept = [s for s in scores if s.reference.strip()]
    return {
        "task": task,
        "modality": modality,
        "published": {
            "count": len(kept),
            "bleu": bleu([s.said for s in kept], [s.reference for s in kept]),
            "meteor": mean(s.meteor for s in kept),
            "rouge_l": mean(s.rouge_l for s in kept),
        },
        "nothing_dropped": {
            "count": len(scores),
            "bleu": bleu([s.said for s in scores], [s.reference for s in scores]),
            "meteor": mean(s.meteor for s in scores),
            "meteor_interval": _interval(scores, lambda s: s.meteor),
            "rouge_l": mean(s.rouge_l for s in scores),
            "rouge_l_interval": _interval(scores, lambda s: s.rouge_l),
        },
        "copied": {
            "bleu": bleu([s.usual for s in scores], [s.reference for s in scores]),
            "meteor": mean(meteor(s.usual, s.reference) for s in scores),
            "rouge_l": mean(rouge_l(s.usual, s.reference) for s in scores),
        },
    }


def _grounded_row(task: str, modality: str, scores: Sequence[AnswerScore]) -> dict[str, Any]:
    """Masks that came with the words; the trivial answer is to mark nothing."""
    found = [s.dice for s in scores if s.dice > 0]
    return {
        "task": task,
        "modality": modality,
        "count": len(scores),
        "dice": mean(s.dice for s in scores),
        "dice_interval": _interval(scores, lambda s: s.dice),
        "dice_published": mean(found),
        "published_left_out": len(scores) - len(found),
    }


def _interval(scores: Sequence[AnswerScore], value: Callable[[AnswerScore], float]) -> tuple[float, float]:
    return case_interval([value(s) for s in scores], [s.case for s in scores])
