"""Many prompts on slices, each picture encoded once: what a volume, a check and int8's gate all ask of a model."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from unibiomed_core.engine import devices
from unibiomed_core.engine.features import FeatureStore, Picture, WorkCounts
from unibiomed_core.engine.generate import AnswerGenerator, GeneratedAnswer, Row
from unibiomed_core.engine.info import ModelInfo, describe
from unibiomed_core.engine.masks import DecodedMask, regions, words
from unibiomed_core.engine.prompts import Question, resolve, yes_or_no
from unibiomed_core.errors import PromptError
from unibiomed_core.modalities import Window, draw_box, to_rgb
from unibiomed_core.model.processor import Processor, inert
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.phrases import caution
from unibiomed_core.tasks import END, IMAGE, SEG
from unibiomed_core.types import Prediction, Prompt, Slice

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What a picture is before any question is asked.

    Args:
        modality: Modality -> share, which sum to 1.
        part: Part of the body -> share, which sum to 1.
        finding: "modality/target" -> how likely the picture shows it, 0..1 each.
    """

    modality: Mapping[str, float]
    part: Mapping[str, float]
    finding: Mapping[str, float]


@dataclass(slots=True)
class _Work:
    """One prompt on one slice, on its way to a prediction; ``picture`` is the language side's, box drawn.

    Args:
        weights: Log-probabilities of the closed answers, in their order; empty where the model wrote.
    """

    question: Question
    slice_number: int
    picture: Picture
    answer: GeneratedAnswer | None = None
    found: list[DecodedMask] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    likelihood: float | None = None

    @property
    def shows_picture(self) -> bool:
        return IMAGE in self.question.text


class Predictor:
    """One model on one device, asked slice by slice.

    Args:
        model: In float32; it is moved to the device and switched to inference.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: "auto", "float32", "bfloat16", "float16", or "int8", which is refused where it would change masks.
        batch_size: Slices encoded at once; None chooses it by device and free memory.
        folder: Where the weights came from.

    Raises:
        DeviceError: The device or precision is not available, or memory does not suffice.
    """

    def __init__(
        self,
        model: UniBiomed,
        processor: Processor,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.placement = devices.choose(device, dtype)
        self.model = devices.place(model, self.placement)
        self.processor = processor
        self.config = model.config
        self.batch_size = devices.batch_size(self.config, self.placement) if batch_size is None else max(1, batch_size)
        budget = devices.feature_budget(self.config, self.placement)
        self.features = FeatureStore(model, processor, self.placement, budget)
        self._reader = AnswerGenerator(model, processor, self.counts, self.placement.working_bytes)
        self.info: ModelInfo = describe(model, self.placement, folder)

    @property
    def memory_needed_bytes(self) -> int:
        """Estimated peak of a run, weights and libraries included, good to about a factor of two."""
        return devices.memory_estimate(self.model, self.placement, self.batch_size)

    @property
    def counts(self) -> WorkCounts:
        """How much work was done so far."""
        return self.features.counts

    @torch.inference_mode()
    def predict(
        self, slices: Sequence[Slice], prompts: Sequence[Prompt], window: Window
    ) -> list[tuple[Prediction, ...]]:
        """Answer every prompt on every slice.

        Each picture goes through each image encoder once; a prompt with a box gives the language side a copy with the
        box drawn, while masks are made on the picture as it is. All ``[SEG]`` of all slices are decoded together.

        Returns:
            One tuple a slice, in the order of the prompts.

        Raises:
            PromptError: A prompt cannot be used on a slice; no answer was made then.
        """
        began = time.perf_counter()
        asked = [[resolve(prompt, piece, self.processor) for prompt in prompts] for piece in slices]
        pictures = [Picture.of(to_rgb(piece.pixels, window)) for piece in slices]
        work = [
            _Work(question, number, _boxed(pictures[number], question.prompt))
            for number, questions in enumerate(asked)
            for question in questions
        ]
        self._answer(work)
        self._weigh(work)
        self._ground(work, pictures)
        seconds = (time.perf_counter() - began) / max(1, len(work))
        done = [self._prediction(item, slices[item.slice_number], seconds) for item in work]
        width = len(prompts)
        return [tuple(done[i * width : (i + 1) * width]) for i in range(len(slices))]

    @torch.inference_mode()
    def likelihoods(self, piece: Slice, prompt: Prompt, answers: Sequence[str], window: Window) -> tuple[float, ...]:
        """How well each of several answers fits a prompt: mean log-probability of a token, for closed questions.

        The picture is read once, with every answer as one row.

        Raises:
            PromptError: As for :meth:`predict`.
        """
        question = resolve(prompt, piece, self.processor)
        work = [
            _Work(replace(question, answer=text if END in text else text + END, choices={}), 0, picture)
            for picture in [_boxed(Picture.of(to_rgb(piece.pixels, window)), prompt)]
            for text in answers
        ]
        self._answer(work, scored=True)
        given = [item.answer for item in work if item.answer is not None]
        return tuple((answer.log_probability or 0.0) / len(answer.ids) for answer in given)

    @torch.inference_mode()
    def first_look(self, piece: Slice, window: Window) -> FirstLook | None:
        """What the model's first look tells of a slice; None for a model that has none."""
        head = self.model.scene
        if head is None:
            return None
        rgb = torch.tensor(to_rgb(piece.pixels, window), device=self.placement.device)  # pixels may be read-only
        logits = head(rgb.permute(2, 0, 1)[None])
        sizes = head.sizes
        named = ((sizes.modalities, logits.modality.softmax(1)), (sizes.parts, logits.part.softmax(1)))
        modality, part = (dict(zip(names, shares[0].tolist(), strict=True)) for names, shares in named)
        chances = logits.finding.sigmoid()[0].tolist()
        return FirstLook(modality, part, dict(zip(sizes.findings, chances, strict=True)))

    def free(self) -> None:
        """Drop cached features and give memory back to the device."""
        self.features.clear()
        devices.release(self.placement)

    def _answer(self, work: Sequence[_Work], scored: bool = False) -> None:
        """Give every piece of work its answer; of several closed answers the likeliest."""
        cut = [self._cut(item) for item in work]
        shown = [(item.picture if item.shows_picture else None, ids) for item, (ids, _) in zip(work, cut, strict=True)]
        rows: list[Row] = []
        owners: list[_Work] = []
        for item, prefix, (_, suffix) in zip(work, self.features.prefixes(shown), cut, strict=True):
            question, limit = item.question, item.question.prompt.max_new_tokens
            for text in question.choices.values() or (question.answer,):
                ids = None if text is None else tuple(self.processor.encode(text))
                self._check_length(prefix.length + len(suffix) + len(ids or (0,)))
                rows.append(Row(prefix, suffix, ids, limit, scored or bool(question.choices)))
                owners.append(item)
        for item, answer in zip(owners, self._reader.answer(rows), strict=True):
            best = item.answer
            if item.question.choices:
                item.weights.append(answer.log_probability or 0.0)
            if best is None or (answer.log_probability or 0.0) > (best.log_probability or 0.0):
                item.answer = answer

    def _weigh(self, work: Sequence[_Work]) -> None:
        """How likely a closed answer is beside the others that were possible; a written yes is set against no."""
        for item in work:
            if item.weights:
                item.likelihood = _share(item.weights, max(item.weights))
        asked = [item for item in work if item.question.prompt.task == "vqa" and not item.question.prompt.exact]
        pairs = [(item, yes_or_no(self.processor.decode(item.answer.ids))) for item in asked if item.answer]
        both = [
            (item, _Work(replace(item.question, choices={text: text for text in pair}), 0, item.picture))
            for item, pair in pairs
            if pair
        ]
        self._answer([scored for _, scored in both])
        for item, scored in both:
            item.likelihood = _share(scored.weights, scored.weights[0])

    def _cut(self, item: _Work) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of a question up to the picture's closing mark, and those behind it."""
        text, image_tokens = self.processor.chat(item.question.text), 0
        if item.shows_picture:
            tiles = self.processor.tile_count(item.picture.rgb.shape[:2])
            text = self.processor.expand_image(text, [tiles])
            image_tokens = tiles * self.config.vision.tokens_per_tile
        ids = tuple(self.processor.encode(text))
        places = [i for i, token in enumerate(ids) if token == self.processor.ids.image_context]
        if len(places) != image_tokens:
            raise PromptError(
                "Image tokens in the question",
                f"{len(places) - image_tokens} more than the picture has",
                f"only the placeholder {IMAGE}",
            )
        self._check_length(len(ids))
        cut = places[-1] + 2 if places else 0  # the last image token and its closing mark
        return ids[:cut], ids[cut:]

    def _check_length(self, tokens: int) -> None:
        longest = self.config.language.max_positions
        if tokens > longest:
            raise PromptError("Prompt too long", f"{tokens} tokens", f"at most {longest}", "Shorten it.")

    def _ground(self, work: Sequence[_Work], pictures: Sequence[Picture]) -> None:
        """Decode the masks of all answers; a batch without ``[SEG]`` never touches SAM 2."""
        # A question among given names is a check of what other questions outline; its own outline is not looked at.
        asking = [
            item
            for item in work
            if item.answer and len(item.answer.states) and item.shows_picture and not item.question.prompt.among
        ]
        if not asking:
            return
        wanted = {pictures[item.slice_number].key: pictures[item.slice_number] for item in asking}
        numbers = {key: number for number, key in enumerate(wanted)}
        features = self.features.grounding(list(wanted.values()))
        owners = [item for item in asking for _ in item.answer.states]  # type: ignore[union-attr]
        states = torch.cat([item.answer.states for item in asking if item.answer])  # (K, D)
        prompts = self.model.bridge(states.float())  # (K, C)
        index = torch.tensor([numbers[pictures[item.slice_number].key] for item in owners], device=prompts.device)
        # The decoder holds a few copies of the features of every row.
        rows = max(1, self.placement.working_bytes // (4 * features.nbytes // len(features)))
        for start in range(0, len(owners), rows):
            part = slice(start, start + rows)
            output = self.model.grounder.decode(features, prompts[part], index[part])
            self.counts.mask_decodes += 1
            sizes = [pictures[item.slice_number].rgb.shape[:2] for item in owners[part]]
            for item, region in zip(owners[part], regions(output, sizes, self.config), strict=True):
                item.found.append(region)

    def _prediction(self, item: _Work, piece: Slice, seconds: float) -> Prediction:
        answer = item.answer
        assert answer is not None
        # Between [SEG] tokens the same letters may be written out; only tokens count.
        runs: list[list[int]] = [[]]
        for token in answer.ids:
            if token == self.processor.ids.seg:
                runs.append([])
            else:
                runs[-1].append(token)
        raw = SEG.join(self.processor.decode(run).replace(SEG, inert(SEG)) for run in runs)
        raw = _CONTROL.sub(" ", raw)  # a model may write any byte; reports are JSON and HTML
        text, phrases = words(raw, item.question, item.found, piece.modality, self.config.presence)
        raw_text = self.processor.decode(answer.ids).strip()
        prompt = item.question.prompt
        asked = prompt.task == "vqa" and not prompt.exact
        shares = tuple(zip(item.question.choices, _shares(item.weights), strict=True)) if item.question.choices else ()
        return Prediction(
            prompt, piece.plane, piece.index, text, raw_text, phrases, answer.truncated, seconds, item.likelihood,
            caution(prompt.question, piece.modality, self.config.targets) if asked else None,
            shares,
        )  # fmt: skip


def _shares(log_probabilities: Sequence[float]) -> list[float]:
    """The share of each in the probability of all."""
    return [_share(log_probabilities, one) for one in log_probabilities]


def _share(log_probabilities: Sequence[float], one: float) -> float:
    """The share that one answer has of the probability of all that are given."""
    highest = max(log_probabilities)
    return math.exp(one - highest) / sum(math.exp(p - highest) for p in log_probabilities)


def _boxed(picture: Picture, prompt: Prompt) -> Picture:
    return picture if prompt.region is None else Picture.of(draw_box(picture.rgb, prompt.region))
