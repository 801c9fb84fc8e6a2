"""python train/evaluate.py MODEL DATA OUT: predictions to files first, numbers from files second.

DATA is a folder of data sets, or of records made from one.

The held-out table: Dice for each data set and target, presence and region-class accuracy, each beside a trivial
baseline (empty mask, mean-shape mask of the training records, majority class of the training records).
"""

from __future__ import annotations

import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # as in run.py

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from train.config import RunConfig
from train.data import records as record_files
from train.data.examples import region_of
from train.data.records import Record, encode_mask
from train.data.sentences import phrase
from train.prepare import prepare
from unibiomed_core.engine.engine import Engine
from unibiomed_core.errors import DataError, UniBiomedError
from unibiomed_core.metrics.labels import accuracy, auc, majority
from unibiomed_core.metrics.overlap import dice
from unibiomed_core.modalities import Window
from unibiomed_core.tasks import NO_FINDINGS
from unibiomed_core.types import Prompt, Slice

AS_IS = Window("as is", 0.0, 255.0)
SMALLEST_BOX = 8
"""Pixels a side; the engine refuses smaller ones, and so nobody can ask for them."""

MASK_FILE, ANSWER_FILE = "masks.jsonl", "answers.jsonl"


def predict(engine: Engine, records: Sequence[Record], out: Path, say: Callable[[str], None]) -> None:
    """Ask every annotated target of every record, present or absent, one region and the disease question.

    Writes ``masks.jsonl`` and ``answers.jsonl``, one row a question.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (
        (out / MASK_FILE).open("w", encoding="utf-8") as masks,
        (out / ANSWER_FILE).open("w", encoding="utf-8") as words,
    ):
        for number, record in enumerate(records):
            for row in _ask_masks(engine, record):
                masks.write(json.dumps(row) + "\n")
            for row in _ask_words(engine, record):
                words.write(json.dumps(row) + "\n")
            if (number + 1) % 100 == 0:
                say(f"{number + 1} of {len(records)} records predicted")


def _slice(record: Record) -> Slice:
    return Slice(record.pixels(), "axial", 0, (1.0, 1.0), record.modality)


def _ask_masks(engine: Engine, record: Record) -> Iterator[dict[str, Any]]:
    truth = {r.target: r.counts for r in record.regions}
    known = engine.info.targets.get(record.modality, ())
    names = [name for name in (*truth, *record.absent) if name in known]
    if not names:
        return
    prompts = [Prompt("segment", target=name) for name in names]
    for name, prediction in zip(names, engine.predict([_slice(record)], prompts, AS_IS)[0], strict=True):
        found = prediction.phrases[0] if prediction.phrases else None
        mask = found.mask.full() if found and found.mask else np.zeros(record.pixels().shape[:2], bool)
        yield {
            "id": record.id,
            "dataset": record.dataset,
            "modality": record.modality,
            "target": name,
            "present": name in truth,
            "presence": found.score if found else 0.0,
            "size": list(mask.shape),
            "mask": encode_mask(mask).decode("ascii"),
            "truth": truth[name].decode("ascii") if name in truth else "",
        }


def _ask_words(engine: Engine, record: Record) -> Iterator[dict[str, Any]]:
    questions: list[tuple[str, Prompt, str]] = []
    if record.regions:
        # The box follows from the record's id, so that every model is asked the same one.
        target, region, _ = region_of(record, np.random.default_rng(zlib.crc32(record.id.encode())))
        if min(region.x1 - region.x0, region.y1 - region.y0) >= SMALLEST_BOX:
            prompt = Prompt("roi_class", region=region, max_new_tokens=40)
            questions.append(("roi_class", prompt, phrase(target, record.modality)))
    if record.findings_known:
        names = [r.target for r in record.regions]
        said = [phrase(n, record.modality) for n in names] or [NO_FINDINGS]
        questions.append(("disease", Prompt("disease", max_new_tokens=40), " | ".join(said)))
    for question in record.questions:
        if question.closed:
            prompt = Prompt("vqa", question=question.question, max_new_tokens=20)
            questions.append(("vqa_closed", prompt, question.answer.lower()))
    if not questions:
        return
    answers = engine.predict([_slice(record)], [q[1] for q in questions], AS_IS)[0]
    for (task, _, truth), answer in zip(questions, answers, strict=True):
        yield {
            "id": record.id, "dataset": record.dataset, "modality": record.modality, "task": task,
            "truth": truth, "answer": answer.text.rstrip(". ").lower(),
        }  # fmt: skip


def score(out: Path, training: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """The table from the prediction files and, for the baselines, the training records."""
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(out / MASK_FILE):
        rows[row["dataset"], row["modality"], row["target"]].append(row)
    shapes = mean_shapes(training, set(rows))
    masks = [_score_target(key, found, shapes.get(key), training) for key, found in sorted(rows.items())]
    return {"masks": masks, "answers": _score_answers(out, training)}


def _score_target(
    key: tuple[str, str, str],
    rows: Sequence[dict[str, Any]],
    shape: NDArray[np.bool_] | None,
    training: Sequence[Record],
) -> dict[str, Any]:
    present = [r for r in rows if r["present"]]
    truth = [_mask(r["size"], r["truth"]) for r in present]
    found = [dice(_mask(r["size"], r["mask"]), t) for r, t in zip(present, truth, strict=True)]
    trivial = [dice(shape, t) for t in truth] if shape is not None else []
    said = [bool(_mask(r["size"], r["mask"]).any()) for r in rows]
    usual = _usually_present(key, training)
    return {
        "dataset": key[0],
        "modality": key[1],
        "target": key[2],
        "present": len(present),
        "absent": len(rows) - len(present),
        "dice": _mean(found),
        "dice_interval": _interval(found),
        "dice_empty_mask": 0.0 if present else float("nan"),
        "dice_mean_shape": _mean(trivial) if present else float("nan"),
        "presence_accuracy": _mean([float(s == r["present"]) for s, r in zip(said, rows, strict=True)]),
        "presence_majority": _mean([float(usual == r["present"]) for r in rows]),
        "presence_auc": auc([r["presence"] for r in rows], [r["present"] for r in rows]),
    }


def mean_shapes(
    training: Sequence[Record], wanted: set[tuple[str, str, str]]
) -> dict[tuple[str, str, str], NDArray[np.bool_]]:
    """For each data set, modality and target: the mean training mask, cut where its mean training Dice is highest."""
    stacks: dict[tuple[str, str, str], list[NDArray[np.bool_]]] = defaultdict(list)
    for record in training:
        for target, mask in record.masks().items():
            key = (record.dataset, record.modality, target)
            if key in wanted:
                stacks[key].append(mask)
    shapes = {}
    for key, stack in stacks.items():
        mean = np.mean(stack, axis=0)
        cuts = [mean >= level for level in np.linspace(0.05, 0.9, 18) if (mean >= level).any()]
        shapes[key] = max(cuts, key=lambda cut: _mean([dice(cut, m) for m in stack[:60]]))
    return shapes


def _usually_present(key: tuple[str, str, str], training: Sequence[Record]) -> bool:
    own = [r for r in training if r.dataset == key[0] and r.modality == key[1]]
    there = sum(any(x.target == key[2] for x in r.regions) for r in own)
    return 2 * there >= there + sum(key[2] in r.absent for r in own)


def _score_answers(out: Path, training: Sequence[Record]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(out / ANSWER_FILE):
        for name in (row["modality"] or "unspecified", "all"):
            groups[row["task"], name].append(row)
    table = []
    for (task, name), rows in sorted(groups.items()):
        truths = [str(r["truth"]).split(" | ") for r in rows]
        answers = [r["answer"] for r in rows]
        right = [
            best if (best := next((t for t in ts if t == a), "")) else ts[0]
            for a, ts in zip(answers, truths, strict=True)
        ]
        usual = majority(_training_answers(task, name, training))
        table.append(
            {
                "task": task,
                "modality": name,
                "count": len(rows),
                "accuracy": accuracy(answers, right),
                "majority": _mean([float(usual in ts) for ts in truths]),
                "majority_answer": usual,
            }
        )
    return table


def _training_answers(task: str, name: str, training: Sequence[Record]) -> list[str]:
    own = [r for r in training if name in ("all", r.modality or "unspecified")]
    if task == "roi_class":
        return [phrase(x.target, r.modality) for r in own for x in r.regions]
    if task == "disease":
        return [
            said
            for r in own
            if r.findings_known
            for said in ([phrase(x.target, r.modality) for x in r.regions] or [NO_FINDINGS])
        ]
    return [q.answer.lower() for r in own for q in r.questions if q.closed]


def markdown(table: dict[str, list[dict[str, Any]]]) -> str:
    """The table for a model card; a row that does not beat its trivial baseline is named as failing."""
    lines = [
        "| data set | target | present / absent | Dice (95 % interval) | mean shape | presence accuracy | majority "
        "| AUC | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["masks"]:
        low, high = row["dice_interval"]
        lines.append(
            f"| {row['dataset']} ({row['modality']}) | {row['target']} | {row['present']} / {row['absent']} | "
            f"{_number(row['dice'])} ({_number(low)} to {_number(high)}) | {_number(row['dice_mean_shape'])} | "
            f"{_number(row['presence_accuracy'])} | {_number(row['presence_majority'])} | "
            f"{_number(row['presence_auc'])} | {'; '.join(failures(row))} |"
        )
    lines += ["", "| task | modality | questions | accuracy | majority class | |", "|---|---|---|---|---|---|"]
    for row in table["answers"]:
        fails = "" if row["accuracy"] > row["majority"] else "fails"
        lines.append(
            f"| {row['task']} | {row['modality']} | {row['count']} | {_number(row['accuracy'])} | "
            f'{_number(row["majority"])} ("{row["majority_answer"]}") | {fails} |'
        )
    return "\n".join(lines)


def failures(row: dict[str, Any]) -> list[str]:
    """Which trivial baselines a row does not beat; presence counts where present and absent pictures both occur."""
    found = []
    if row["present"] and not row["dice"] > max(row["dice_empty_mask"], np.nan_to_num(row["dice_mean_shape"])):
        found.append("fails: Dice")
    if row["present"] and row["absent"] and not row["presence_accuracy"] > row["presence_majority"]:
        found.append("fails: presence")
    return found


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean over pictures, 1000 draws, fixed seed."""
    if not values:
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).choice(values, (1000, len(values))).mean(axis=1)
    return float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"


def _mask(size: Sequence[int], counts: str) -> NDArray[np.bool_]:
    return coco_mask.decode({"size": list(size), "counts": counts.encode("ascii")}).astype(bool)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise DataError("Predictions not found", f"there is no {path}", "a file written by the prediction step")
    with path.open(encoding="utf-8") as handle:
        yield from map(json.loads, handle)


def main(arguments: Sequence[str]) -> int:
    """MODEL (preset or folder), DATA (data sets, or records made from them), OUT; returns the exit status."""
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    try:
        model, folder, out = arguments[0], Path(arguments[1]), Path(arguments[2])
        if not (folder / "test.parquet").is_file():
            prepare(folder, out / "records", RunConfig("", "").record_side, _say)
            folder = out / "records"
        predict(Engine.load(model), record_files.load(folder / "test.parquet"), out, _say)
        table = score(out, record_files.load(folder / "train.parquet"))
    except UniBiomedError as error:
        print(error, file=sys.stderr)
        return 1
    (out / "table.json").write_text(json.dumps(table, indent=1), "utf-8")
    (out / "table.md").write_text(markdown(table) + "\n", "utf-8")
    print(markdown(table))
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
