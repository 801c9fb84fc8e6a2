"""The test items of data sets, whole: where each picture or volume is, and what is known to be on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import vocabulary
from unibiomed_core.engine.volume.counting import tally
from unibiomed_core.errors import DataError
from unibiomed_core.types import CroppedMask, Volume

from ..data.body_parts import body_of, foreign_targets
from ..datasets import shared_layout, volumes
from ..datasets.names import Names
from ..datasets.request import ConversionRequest
from ..datasets.shared_layout import Source

ALSO_RIGHT: Mapping[str, frozenset[str]] = MappingProxyType({"heart": frozenset({"chest"})})
"""Part of the body -> parts that are a right answer too."""


@dataclass(frozen=True)
class Case:
    """One test item.

    Args:
        id: Data set and item.
        group: Patient, video or eye.
        modality: Empty where the set does not tell it.
        folder: Of its data set.
        body: Parts of the body that its data set shows; empty where nobody says.
        first: Whether it is the first test item of its data set by name.
    """

    id: str
    dataset: str
    group: str
    modality: str
    folder: Path
    about: Mapping[str, Any] = field(repr=False)
    item: Mapping[str, Any] = field(repr=False)
    source: Source = field(repr=False)
    body: tuple[str, ...] = ()
    first: bool = False

    @property
    def image(self) -> Path:
        """The image file.

        Raises:
            DataError: It is not there.
        """
        return Names(self.folder).find(self.item["image"], [self.folder])

    @property
    def text(self) -> Mapping[str, Any]:
        return self.item.get("text") or {}

    @property
    def parts(self) -> frozenset[str]:
        """Parts of the body that are a right answer; empty where the set does not tell."""
        own = self.body or (str(self.item.get("anatomy", "")),)
        return frozenset(own).union(*(ALSO_RIGHT.get(part, ()) for part in own)) & frozenset(vocabulary.PARTS)


@dataclass(frozen=True)
class Count:
    """How many things of a population there are.

    Args:
        origin: "source": the data set tells it; "outlines": counted on its mask as the engine counts on its own.
    """

    number: int
    origin: str


@dataclass(frozen=True)
class Truth:
    """What a data set tells of an item.

    Args:
        present: Annotated target -> whether it is there. What is not in here is neither right nor wrong.
        masks: Target -> (Z, Y, X) bool, for those with an outline.
        lesions: Annotated abnormal targets of which the set shows every one, the outermost of nested ones.
        normal: Why a picture counts as normal: "class" (the set calls it normal), "annotation" (it shows none of the
            abnormal targets that the set annotates), or "".
        foreign: Targets that cannot be there: of another part of the body.
        counts: Population -> how many.
    """

    present: Mapping[str, bool]
    masks: Mapping[str, NDArray[np.bool_]]
    lesions: tuple[str, ...]
    normal: str
    foreign: frozenset[str]
    counts: Mapping[str, Count]


def cases(data: Path, limit: int = 0) -> list[Case]:
    """The test items of one data set or of every data set below a folder, by name.

    Args:
        limit: So many evenly spaced items of each data set, its first one among them; 0 takes all.

    Raises:
        DataError: The folder holds no data set of the shared layout, no test item, or an item is not complete.
    """
    found: list[Case] = []
    for folder, dataset, about, source in shared_layout.data_sets(ConversionRequest(data, data.name)):
        for item in about["items"]:
            if missing := {"id", "split", "image"} - item.keys():
                lacking = f"one of {dataset} lacks {', '.join(sorted(missing))}"
                raise DataError("Incomplete item", lacking, "id, split and image")
        test = sorted((item for item in about["items"] if item["split"] == "test"), key=lambda item: str(item["id"]))
        if limit and limit < len(test):
            test = [test[number * len(test) // limit] for number in range(limit)]
        found += [
            Case(
                f"{dataset}/{item['id']}", dataset, str(item.get("group", item["id"])),
                shared_layout.modality_of(about, item), folder, about, item, source,
                body_of(folder.name), first=not number,
            )
            for number, item in enumerate(test)
        ]  # fmt: skip
    if not found:
        raise DataError("Nothing to report on", f"no item of {data} is in the split 'test'", "at least one")
    return found


def truth_of(case: Case, volume: Volume) -> Truth:
    """What is annotated on an item.

    Args:
        volume: Its image, as it was read.

    Raises:
        DataError: A mask is missing or does not fit.
        ReadError: A mask is damaged.
    """
    layers = shared_layout.layers_of(case.about, case.item, case.source, volume.stored, Names(case.folder), case.folder)
    labels = shared_layout.labels_of(case.source, case.item) if layers else {}
    masks = {target: np.any([np.isin(layer, v) for layer in layers], axis=0) for target, v in labels.items()}
    sizes = {target: int(mask.sum()) for target, mask in masks.items()}
    boxes = _boxes(case)
    # What is smaller than training and the other numbers count is neither there nor absent.
    present = {t: size > 0 for t, size in sizes.items() if not 0 < size < volumes.MINIMUM_PIXELS}
    present |= dict.fromkeys(boxes, True)
    abnormal = [target for target in masks if _is_lesion(target, case.modality)]
    lesions = tuple(t for t in abnormal if not wholes(t) & set(abnormal)) if case.source.findings_known else ()
    normal = "class" if case.text.get("image_class") == "normal" else ""
    if not normal and lesions and not any(sizes[target] for target in abnormal):
        normal = "annotation"
    return Truth(
        present,
        {target: mask for target, mask in masks.items() if target in present},
        tuple(target for target in lesions if target in present),
        normal,
        frozenset(foreign_targets(case.modality, case.source.labels, case.body)),
        _counts(case, volume, masks, boxes),
    )


def wholes(target: str) -> frozenset[str]:
    """All targets that a target is a part or a kind of; none for one that the vocabulary does not know."""
    return vocabulary.wholes(target) if target in vocabulary.targets() else frozenset()


def _is_lesion(target: str, modality: str) -> bool:
    entry = vocabulary.find(target, modality)
    return entry is not None and entry.kind == "finding" and entry.counted in ("one", "several")


def _boxes(case: Case) -> dict[str, int]:
    """Target -> how many boxes an item has of it."""
    found: dict[str, int] = {}
    for value, *_ in case.item.get("boxes", ()):
        for target, values in case.source.labels.items():
            if value in values:
                found[target] = found.get(target, 0) + 1
    return found


def _counts(
    case: Case, volume: Volume, masks: Mapping[str, NDArray[np.bool_]], boxes: Mapping[str, int]
) -> dict[str, Count]:
    found = {}
    for target in {**masks, **boxes}:
        entry = vocabulary.find(target, case.modality)
        if not volume.is_2d or entry is None or entry.counted != "population":
            continue
        told = boxes.get(target) or (case.text.get("n_nuclei") if target == "cell nucleus" else None)
        if told:
            found[target] = Count(int(told), "source")
        elif target in masks and masks[target].any():
            counted = tally(CroppedMask.from_full(masks[target]), "population", volume)
            found[target] = Count(counted.instances or 0 if counted else 0, "outlines")
    return found
