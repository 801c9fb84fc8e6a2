"""A model is asked about test records, and its masks and answers are written to prediction files."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from unibiomed_core.engine.engine import Engine
from unibiomed_core.metrics.published import clean
from unibiomed_core.modalities import AS_IS
from unibiomed_core.tasks import NO_FINDINGS, parse_answer
from unibiomed_core.types import Prediction, Prompt, Region, Slice

from ..data import boxes, examples, negatives, questions, wordings
from ..data.records import Record
from ..data.run_lengths import encode_mask
from .prediction_files import ANSWER_FILE, MASK_FILE, Row, about, mask_row

SMALLEST_BOX = 8
"""Pixels a side; the engine refuses smaller ones, and so nobody can ask for them."""

BATCH = 16
"""Pictures that are asked the same questions in one call."""

SAY_EVERY = 100
LONGEST_ANSWER = {"vqa_closed": 20, "image_class": 20, "vqa_open": 40, "describe": 160}
"""Tokens a question may be answered with."""

WHOLE_PICTURE = {"disease": Prompt("disease", max_new_tokens=40), "report": Prompt("report", max_new_tokens=160)}


@dataclass
class Asked:
    """What was asked, and what was left out and why."""

    records: int = 0
    masks: int = 0
    answers: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def predict(
    engine: Engine, records: Sequence[Record], out: Path, say: Callable[[str], None], image: str = "as is"
) -> Asked:
    """Ask every annotated target of every record, and the text questions that its annotation can answer.

    Writes ``masks.jsonl`` and ``answers.jsonl`` as it goes; what stands there when it is stopped is whole rows.

    Args:
        image: "as is", or "noise" for a picture of noise of the same mean and deviation in place of each picture.
    """
    out.mkdir(parents=True, exist_ok=True)
    asked = Asked()
    with (
        (out / MASK_FILE).open("w", encoding="utf-8") as masks,
        (out / ANSWER_FILE).open("w", encoding="utf-8") as words,
    ):
        for batch in _alike(engine, records, asked):
            pieces = [Slice(_pixels(r, image), "axial", 0, (1.0, 1.0), r.modality) for r in batch]
            asked.masks += _write(masks, _ask_together(engine, batch, pieces, words, asked))
            for record, piece in zip(batch, pieces, strict=True):
                asked.answers += _write(words, _ask_alone(engine, record, piece))
            engine.free()  # no picture comes twice
            before = asked.records
            asked.records += len(batch)
            if before // SAY_EVERY != asked.records // SAY_EVERY or asked.records == len(records):
                say(f"{asked.records} of {len(records)} records predicted")
    return asked


def _write(file: IO[str], rows: Iterator[Row]) -> int:
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        file.write(json.dumps(row) + "\n")
    file.flush()
    return count


def _pixels(record: Record, image: str) -> NDArray[np.uint8]:
    pixels = record.pixels()
    if image == "as is":
        return pixels
    rng = np.random.default_rng(zlib.crc32(record.id.encode()))
    noise = rng.normal(pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1)), pixels.shape)
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)


def _alike(engine: Engine, records: Sequence[Record], asked: Asked) -> Iterator[list[Record]]:
    """Neighbouring records of one modality that are asked the same targets, up to ``BATCH`` at a time."""
    batch: list[Record] = []
    for record in records:
        if batch and (len(batch) == BATCH or _together(engine, record) != _together(engine, batch[0])):
            yield batch
            batch = []
        batch.append(record)
        known = _together(engine, record)[1]
        for name in set(_annotated(record)) - set(known):
            asked.left_out[f"not learnt: {name} ({record.modality})"] += 1
    if batch:
        yield batch


def _annotated(record: Record) -> list[str]:
    return sorted({*(r.target for r in record.regions if r.counts), *record.absent})


def _together(engine: Engine, record: Record) -> tuple[str, tuple[str, ...], bool]:
    """What decides whether two records can share a call: modality, targets, whether findings are asked."""
    learnt = engine.info.targets  # empty for a model that takes free text
    names = [n for n in _annotated(record) if not learnt or n in learnt.get(record.modality, ())]
    return record.modality, tuple(names), record.findings_known


def _ask_together(
    engine: Engine, batch: Sequence[Record], pieces: Sequence[Slice], words: IO[str], asked: Asked
) -> Iterator[Row]:
    """Mask rows; the answers to questions on the whole picture go to ``words``."""
    _, names, findings_known = _together(engine, batch[0])
    tasks = list(WHOLE_PICTURE) if findings_known else []
    prompts = [*(Prompt("segment", target=n) for n in names), *(WHOLE_PICTURE[t] for t in tasks)]
    if not prompts:
        return
    for record, given in zip(batch, engine.predict(pieces, prompts, AS_IS), strict=True):
        for name, prediction in zip(names, given, strict=False):
            found = prediction.phrases[0] if prediction.phrases else None
            yield mask_row(record, name, _union(prediction, record), found.score if found else 0.0)
        rows = (_finding_row(record, t, p) for t, p in zip(tasks, given[len(names) :], strict=True))
        asked.answers += _write(words, rows)


def _finding_row(record: Record, task: str, prediction: Prediction) -> Row:
    """Disease or report: words, and what was marked against all that is annotated as a finding."""
    found = negatives.findings(record)
    phrases = [wordings.phrase(n, record.modality) for n in found] or [NO_FINDINGS]
    row = _answer_row(record, task, prediction, phrases)
    if task == "report":
        row["truths"] = [clean(examples.report_answer(record)[0])]
        row["reference"] = _origin(r.caption for r in record.regions)
    return {**row, **_masks(record, found, prediction)}


def _origin(captions: Iterable[str]) -> str:
    """Whether a reference text holds the source's words or was made by rule alone."""
    return "source" if any(captions) else "rule"


def _masks(record: Record, targets: Sequence[str], prediction: Prediction) -> Row:
    """The union of the targets' masks against the union of what was marked; nothing where a target has no mask."""
    known = record.masks()
    if set(targets) - set(known):
        return {}
    truth = np.zeros(record.pixels().shape[:2], bool)
    for name in targets:
        truth |= known[name]
    marked = encode_mask(_union(prediction, record))
    return {
        "size": list(truth.shape), "mask": marked.decode("ascii"), "truth_mask": encode_mask(truth).decode("ascii")
    }  # fmt: skip


def _union(prediction: Prediction, record: Record) -> NDArray[np.bool_]:
    whole = np.zeros(record.pixels().shape[:2], bool)
    for mask in prediction.masks:
        whole |= mask.full()
    return whole


def _answer_row(record: Record, task: str, prediction: Prediction, truths: Sequence[str]) -> Row:
    """One row of ``answers.jsonl``; ``truths`` are alternatives, each of them right."""
    said = parse_answer(prediction.raw_text).text  # without the product's notes on masks that were withdrawn
    return {**about(record), "task": task, "truths": list(truths), "answer": said, "raw": prediction.raw_text}


def _ask_alone(engine: Engine, record: Record, piece: Slice) -> Iterator[Row]:
    """Questions that no other record shares: its region, its anatomies, its question and answer pairs, its class."""
    asked: list[tuple[str, Prompt, list[str], Row]] = []
    if (found := roi_question(record)) is not None:
        region, names, sentence, origin = found
        box: Row = {"box": list(region.box)}
        asked.append(("roi_class", Prompt("roi_class", region=region, max_new_tokens=40), names, box))
        prompt = Prompt("roi_describe", region=region, max_new_tokens=160)
        asked.append(("roi_describe", prompt, [sentence], {**box, "reference": origin}))
    for anatomy in dict.fromkeys(r.anatomy for r in record.regions if r.anatomy):
        prompt = Prompt("grounded_vqa", target=anatomy, max_new_tokens=80)
        names = [r.target for r in record.regions if r.anatomy == anatomy]
        asked.append(("grounded_vqa", prompt, names, {"anatomy": anatomy}))
    for task, question, answer in questions_of(record):
        prompt = Prompt("vqa", question=question, max_new_tokens=LONGEST_ANSWER[task])
        asked.append((task, prompt, [answer], {"question": question}))
    if not asked:
        return
    answers = engine.predict([piece], [a[1] for a in asked], AS_IS)[0]
    for (task, _, truths, more), prediction in zip(asked, answers, strict=True):
        marked = _masks(record, truths, prediction) if task == "grounded_vqa" else {}
        yield {**_answer_row(record, task, prediction, truths), **more, **marked}


def questions_of(record: Record) -> Iterator[tuple[str, str, str]]:
    """(task, question, answer) of a record's text questions, its class and its caption; answers in lower case."""
    for q in record.questions:
        yield "vqa_closed" if q.closed else "vqa_open", q.question, q.answer.lower()
    if record.dataset in questions.CLASS_QUESTIONS and record.image_class:
        question, says = questions.CLASS_QUESTIONS[record.dataset]
        yield "image_class", question, (says or {}).get(record.image_class, record.image_class).lower()
    if "describe" in examples.available_tasks(record):
        yield "describe", questions.DESCRIBE_QUESTIONS[0].removeprefix("<image>\n"), record.caption.lower()


def roi_question(record: Record) -> tuple[Region, list[str], str, str] | None:
    """The box that a record is asked about, every right name for it, its description and where that comes from.

    The box follows from the record's id, so that every model is asked the same one. Several targets may have a piece
    with this very box (a hippocampus and its anterior part on one slice); naming any of them is right.

    Returns:
        None where the record has no region, or its box is smaller than ``SMALLEST_BOX``.
    """
    if not record.regions:
        return None
    own, region, piece = boxes.region_of(record, np.random.default_rng(zlib.crc32(record.id.encode())))
    target = own.target
    if min(region.x1 - region.x0, region.y1 - region.y0) < SMALLEST_BOX:
        return None
    masks = record.masks()
    same = [
        r.target
        for r in record.regions
        if r.target != target and region.box in (_piece_boxes(masks[r.target]) if r.target in masks else {r.box})
    ]
    names = list(dict.fromkeys(wordings.phrase(name, record.modality) for name in (target, *same)))
    caption = own.caption
    said = caption or f"{wordings.describe(target, piece, record.pixels(), record.modality)}."
    return region, names, said, _origin([caption])


def _piece_boxes(mask: NDArray[np.bool_]) -> set[tuple[int, int, int, int]]:
    """(x0, y0, x1, y1), corners included, of every connected piece."""
    found = ndimage.find_objects(ndimage.label(mask)[0])
    return {(c.start, r.start, c.stop - 1, r.stop - 1) for r, c in found}
