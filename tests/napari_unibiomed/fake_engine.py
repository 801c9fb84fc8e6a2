"""An engine that answers from a script, waits where a test wants it to, and fails where it is told. Loads no torch.

    engine = FakeEngine(found={"liver": {1: (4, 4, 20, 20), 2: (4, 4, 20, 20)}}, held=True)
    session = Session(load_engine=engine.load)
    session.start(Job("report", ct(), RunRequest.segment("liver")))
    engine.wait_until_in_work()      # the first slice is in work
    engine.let(1)                    # let one slice through
    engine.let_all()

It has the same ``run``, ``predict``, ``info`` and ``free`` as the real engine, links masks and builds reports with the
real functions, and takes one slice at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.patience import GUARD_S
from unibiomed_core import report as reports
from unibiomed_core.engine.volume import plans
from unibiomed_core.engine.volume.finish import Examined, find, measured, unchecked
from unibiomed_core.engine.volume.linking import canonical_target
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.errors import PromptError, ReadError
from unibiomed_core.modalities import Window, choose_window
from unibiomed_core.types import (
    Absence,
    CroppedMask,
    Ended,
    Note,
    Phrase,
    Prediction,
    Prompt,
    Slice,
    StoredOrder,
    Volume,
)
from unibiomed_core.updates import CancelToken, Done, FindingFound, Progress, SliceDone, Update

Box = tuple[int, int, int, int]
"""Rows y0 to y1 and columns x0 to x1, the ends left out: (y0, x0, y1, x1)."""

TARGETS = ("liver", "spleen")
SECONDS_A_SLICE = 0.01
"""What a slice is said to take: a count, so that what is shown does not depend on the machine."""


@dataclass(frozen=True, slots=True)
class FakeInfo:
    """What the real engine's ``info`` has."""

    name: str = "fake"
    layout: str = "memory"
    folder: str = ""
    licence: str = "none"
    parameters: int = 1
    sha256: str = "0" * 64
    device: str = "cpu"
    dtype: str = "float32"
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default_targets: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"ct": TARGETS})
    facts: Mapping[str, str] = field(default_factory=dict)

    def provenance(self) -> dict[str, Any]:
        names = ("name", "layout", "folder", "licence", "parameters", "sha256", "device", "dtype")
        return {**{name: getattr(self, name) for name in names}, "facts": dict(self.facts)}


class FakeEngine:
    """See the module.

    Args:
        found: Target -> slice index -> box of its mask; None marks a box of every target on every slice.
        answers: Task -> text of its answer ("vqa", "roi_class", "roi_describe", "report").
        failures: Slice index -> what is raised there, once.
        truncated: Slices whose answers were cut.
        warnings: Further warnings of the report, such as that memory ran out.
        held: Every slice waits for :meth:`let`.
        load_fails: What :meth:`load` raises, once.
        load_held: :meth:`load` waits for :meth:`let_load`.
        sees: (modality, share), likeliest first, of every picture whose modality nobody told; where the first share is
            small the engine is undecided.
    """

    def __init__(
        self,
        found: Mapping[str, Mapping[int, Box]] | None = None,
        *,
        answers: Mapping[str, str] | None = None,
        failures: Mapping[int, Exception] | None = None,
        truncated: Sequence[int] = (),
        warnings: Sequence[Note] = (),
        held: bool = False,
        load_fails: Exception | None = None,
        load_held: bool = False,
        info: FakeInfo | None = None,
        sees: Sequence[tuple[str, float]] = (("xray", 0.98), ("mri", 0.02)),
    ) -> None:
        self.found = found
        self.answers = {
            "vqa": "yes",
            "roi_class": "liver in abdomen CT",
            "roi_describe": "a bright region",
            "report": "",
        }
        self.answers |= dict(answers or {})
        self.failures = dict(failures or {})
        self.truncated = set(truncated)
        self.warnings = list(warnings)
        self.load_fails = load_fails
        self.info = info or FakeInfo()
        self.asked: list[tuple[int, tuple[Prompt, ...]]] = []
        self.windows: list[Window] = []
        self.requests: list[RunRequest] = []
        self.threads: set[str] = set()
        self.sees = tuple(sees)
        self.looks: list[Volume] = []
        self.freed = 0
        self.loads: list[tuple[Any, ...]] = []
        self._held = threading.Event()
        if not held:
            self._held.set()
        self._permits = threading.Semaphore(0)
        self._in_work = threading.Semaphore(0)
        self._load_free = threading.Event()
        if not load_held:
            self._load_free.set()
        self.loading = threading.Event()

    # What a test does

    def wait_until_in_work(self) -> None:
        """Until the next slice is in work; call it once for every slice."""
        assert self._in_work.acquire(timeout=GUARD_S), "no slice came"

    def let(self, slices: int = 1) -> None:
        """Let so many slices through."""
        for _ in range(slices):
            self._permits.release()

    def let_all(self) -> None:
        """No slice waits any more."""
        self._held.set()
        self._permits.release()

    def let_load(self) -> None:
        self._load_free.set()

    def load(self, *arguments: Any) -> FakeEngine:
        """Pass this to a session as its ``load_engine``."""
        self.threads.add(threading.current_thread().name)
        self.loads.append(arguments)
        self.loading.set()
        assert self._load_free.wait(GUARD_S), "nobody let the loading go on"
        if self.load_fails is not None:
            error, self.load_fails = self.load_fails, None
            raise error
        return self

    # What the real engine does

    def predict(
        self, slices: Sequence[Slice], prompts: Sequence[Prompt], window: Window
    ) -> list[tuple[Prediction, ...]]:
        self.threads.add(threading.current_thread().name)
        self.windows.append(window)
        answers = []
        for piece in slices:
            self.asked.append((piece.index, tuple(prompts)))
            self._in_work.release()
            if not self._held.is_set():
                assert self._permits.acquire(timeout=GUARD_S), "nobody let the slice go on"
            if piece.index in self.failures:
                raise self.failures.pop(piece.index)
            answers.append(tuple(self._answer(piece, prompt, n) for n, prompt in enumerate(prompts)))
        return answers

    def with_modality(self, volume: Volume) -> Volume:
        self.threads.add(threading.current_thread().name)
        assert not volume.modality
        self.looks.append(volume)
        self._in_work.release()
        if not self._held.is_set():
            assert self._permits.acquire(timeout=GUARD_S), "nobody let the look go on"
        best, share = self.sees[0]
        if share < 0.5:
            names = [name for name, _ in self.sees]
            raise ReadError(
                "Modality not told", "nothing tells", "one", code="modality_not_told", values={"likely": names}
            )
        return replace(volume, modality=best, modality_by="model", modality_shares=self.sees)

    def run(
        self,
        volume: Volume,
        request: RunRequest = RunRequest(),
        *,
        cancel: CancelToken | None = None,
        known: Mapping[int, tuple[Prediction, ...]] | None = None,
    ) -> Iterator[Update]:
        self.requests.append(request)
        cancel, known = cancel or CancelToken(), known or {}
        plane, every, indices = request.plane, request.every, request.indices
        window = request.window or choose_window(volume)
        names = self.info.default_targets.get(volume.modality, TARGETS)
        prompts = request.prompts or RunRequest.segment(*names).prompts
        if any(prompt.target == "nonsense" for prompt in prompts):
            raise PromptError("Target not learnt", "the model 'fake' was not trained on 'nonsense'", "liver or spleen")
        count = volume.slice_count(plane)
        planned = sorted(set(indices)) if indices is not None else list(range((count - 1) % every // 2, count, every))
        done: dict[int, tuple[Prediction, ...]] = {}
        yield Progress(0, len(planned))
        for index in sorted(planned, key=lambda i: i not in known):
            if index not in known and cancel.cancelled:
                break
            if index in known:
                done[index] = known[index]
            else:
                (done[index],) = self.predict([volume.slice(index, plane)], prompts, window)
            yield SliceDone(index, done[index])
            gone = SECONDS_A_SLICE * len(done)
            yield Progress(len(done), len(planned), gone / len(done) * (len(planned) - len(done)))
        route = plans.route(request.plan, volume, plane, window, every, indices)
        examined = Examined(volume, request, prompts, (), route)
        for index, given in done.items():
            examined.aggregation.take(index, given, volume.modality)
        ended: Ended = "cancelled" if len(done) < len(planned) else "finished"
        linked = find(examined, ended)
        found, _ = measured(examined, unchecked(linked))
        for finding in found:
            yield FindingFound(finding)
        sentences = []
        if request.describe and self.answers["report"] and found and len(done) == len(planned):
            ((said,),) = self.predict(
                [volume.slice(found[0].measurements.slice_largest, plane)], [Prompt("report")], window
            )
            sentences.append((said.index, said.text))
        names = {canonical_target(p.target, volume.modality) for p in prompts if p.task == "segment"}
        yield Done(
            reports.build(
                volume=volume,
                window=None if volume.is_rgb else window,
                plane=plane,
                findings=found,
                absences=[Absence(n, 0.03, len(done)) for n in sorted(names - {f.target for f in found}) if done],
                model=self.info.provenance(),
                settings={
                    "targets": [p.target for p in prompts if p.target],
                    "every": every,
                    **examined.selection.stated(),
                },
                slices_done=done,
                slices_skipped=(),
                seconds=SECONDS_A_SLICE * len(done),
                sentences=sentences,
                truncated=[i for i in done if i in self.truncated],
                specks_dropped=linked.specks_dropped,
                warnings=[*self.warnings, *linked.notes],
                ended=ended,
            )
        )

    def free(self) -> None:
        self.freed += 1

    def _answer(self, piece: Slice, prompt: Prompt, number: int) -> Prediction:
        cut = piece.index in self.truncated
        if prompt.task != "segment":
            text = self.answers.get(prompt.task, "")
            return Prediction(prompt, piece.plane, piece.index, text, text, (), cut, 0.01)
        box = self._box(piece, prompt.target, number)
        if box is None:
            return Prediction(prompt, piece.plane, piece.index, prompt.target, f"It is {prompt.target}.", (), cut, 0.01)
        mask = np.zeros(piece.shape, bool)
        mask[box[0] : box[2], box[1] : box[3]] = True
        phrase = Phrase(prompt.target, 0, len(prompt.target), 0.9, CroppedMask.from_full(mask), prompt.target)
        return Prediction(prompt, piece.plane, piece.index, prompt.target, "It is [SEG].", (phrase,), cut, 0.01)

    def _box(self, piece: Slice, target: str, number: int) -> Box | None:
        if self.found is not None:
            return self.found.get(target, {}).get(piece.index)
        rows, columns = piece.shape
        height, width = rows // 4, columns // 4
        top, left = rows // 8 + (number % 2) * height * 2, columns // 8 + (number // 2 % 2) * width * 2
        return top, left, top + height, left + width


def ct(count: int = 6, size: int = 48, name: str = "phantom") -> Volume:
    """(count, size, size) CT in HU with a file's geometry: 5 mm slices, 1 mm pixels, some body everywhere."""
    voxels = np.random.default_rng(7).normal(40, 30, (count, size, size)).astype(np.int16)
    voxels[:, 0, :] = -1000
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-5, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    stored_affine = affine[:, [2, 1, 0, 3]]
    stored = StoredOrder((2, 1, 0), (False, False, False), (size, size, count), stored_affine)
    return Volume(voxels, affine, "ct", "HU", "mm", True, stored, name=name)


def picture(size: tuple[int, int] = (40, 56), name: str = "picture") -> Volume:
    """A 2D RGB picture without a size in mm."""
    pixels = np.random.default_rng(5).integers(0, 255, (1, *size, 3), dtype=np.uint8)
    stored = StoredOrder((0, 1, 2), (False, False, False), size, np.eye(4))
    return Volume(pixels, np.eye(4), "pathology", "intensity", "px", False, stored, name=name)
