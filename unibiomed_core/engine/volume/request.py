"""What is asked of a whole volume or picture: one record from the command line, the window, a program and the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from unibiomed_core.modalities import Window
from unibiomed_core.types import Plane, Prompt, Region


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is asked, of which slices, and how masks become findings. Immutable, hashable, and plain values as JSON.

    Args:
        prompts: Asked of every slice. Empty takes the model's default targets for the modality, else all of the
            vocabulary's.
        plane: Slices are taken across it.
        plan: A name of ``plans.PLANS``.
        every: Step between the slices of the first pass, from the middle of the first step on; 1 leaves it to the plan.
        indices: Exactly these slices instead, by canonical index, empty ones included; with the plan "all" only.
        window: Intensity window; None takes the modality's.
        describe: Let the model describe the largest slice of the largest findings, or the picture, in its own words.
        check: Ask openly beside what is searched by name, and look again at what was found; what does not stand is left
            out, and what is shown is established first.
        smooth_mm: Standard deviation of a 3D smoothing of each finding; 0 leaves the masks as the model made them.
        least_presence: Findings with a lower presence are left out, and the report's warnings count them; 0..1.
        min_area_mm2: Mask pieces of a slice with a smaller area are left out; None takes the usual rule for specks.
        link_slices: Join pieces of neighbouring slices; False leaves the pieces of each slice findings of their own.
    """

    prompts: tuple[Prompt, ...] = ()
    plane: Plane = "axial"
    plan: str = "all"
    every: int = 1
    indices: tuple[int, ...] | None = None
    window: Window | None = None
    describe: bool = True
    check: bool = True
    smooth_mm: float = 0.0
    least_presence: float = 0.0
    min_area_mm2: float | None = None
    link_slices: bool = True

    @classmethod
    def segment(cls, *targets: str, **others: Any) -> RunRequest:
        """The request for some targets by name, such as "liver"; ``others`` are the further fields."""
        return cls(tuple(Prompt("segment", target) for target in targets), **others)

    @property
    def changed(self) -> dict[str, Any]:
        """Fields that differ from what is usual, and their values."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


def to_json(request: RunRequest) -> dict[str, Any]:
    """A request as plain JSON values, under the names of its fields."""
    return asdict(request)


def from_json(about: Mapping[str, Any]) -> RunRequest:
    """The request that :func:`to_json` wrote.

    Raises:
        KeyError: A region or prompt is not complete.
        TypeError: A field is unknown, or of another kind.
    """
    indices, window = about.get("indices"), about.get("window")
    return RunRequest(
        **{
            **about,
            "prompts": tuple(prompt_from_json(prompt) for prompt in about.get("prompts", ())),
            "indices": None if indices is None else tuple(indices),
            "window": None if window is None else Window(**window),
        }
    )


def prompt_from_json(about: Mapping[str, Any]) -> Prompt:
    """The prompt whose fields were written.

    Raises:
        KeyError: It says nothing of a region.
        TypeError: A field is unknown.
    """
    region = about["region"]
    among = tuple(about.get("among", ()))
    return Prompt(**{**about, "among": among, "region": None if region is None else Region(**region)})
