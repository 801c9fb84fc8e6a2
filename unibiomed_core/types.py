"""What flows through the product: frozen records of numpy arrays and plain values.

None of them does input or output and none touches a device. Axis order is always (Z, Y, X): Z grows towards
Inferior, Y towards Posterior, X towards Left. World coordinates are millimetres in the RAS+ convention of NIfTI
(x towards Right, y towards Anterior, z towards Superior).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
"""The plane whose slices are taken across axis 0, 1, 2 of a canonical volume."""

NOTICE = "Research use only. Not a medical device. Findings are machine generated and need expert review."


@dataclass(frozen=True, slots=True)
class Note:
    """Something that has to be said about an image or a run.

    Args:
        code: The case, for code that acts on it.
        text: One whole sentence or more, for people only.
        values: What the case is about, for whoever says it in other words.
    """

    code: str
    text: str
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class StoredOrder:
    """The exact way back from canonical axes to the order the file was stored in.

    ``canonical = flip(stored.transpose(axes), flips)``; a trailing channel axis is left alone.

    Args:
        axes: ``axes[i]`` is the stored axis that became canonical axis ``i``.
        flips: Whether canonical axis ``i`` runs against its stored axis.
        shape: Spatial shape as stored, 2 or 3 numbers; a 2D image is stored as (H, W) and canonical as (1, H, W).
        affine: 4x4 float64, stored (i, j, k) index to RAS+ mm, as read from the file.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def to_canonical(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A view of a stored array in canonical (Z, Y, X[, C]) order."""
        if len(self.shape) == 2:
            return stored[np.newaxis]
        turned = stored.transpose(*self.axes, *range(3, stored.ndim))
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]

    def to_stored(self, canonical: NDArray[Any]) -> NDArray[Any]:
        """A view of a canonical (Z, Y, X[, C]) array in the order of the file."""
        if len(self.shape) == 2:
            return canonical[0]
        turned = canonical[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]
        back = tuple(int(axis) for axis in np.argsort(self.axes))
        return turned.transpose(*back, *range(3, turned.ndim))


@dataclass(frozen=True, slots=True)
class Volume:
    """An image in canonical axes. A 2D image has Z = 1.

    Args:
        voxels: (Z, Y, X) of any real dtype, or (Z, Y, X, 3) uint8.
        affine: 4x4 float64, canonical (z, y, x) index to RAS+ mm (pixels where ``spatial_unit`` is "px").
        modality: A name of ``modalities.MODALITIES``.
        intensity_unit: "HU", "SUV" or "intensity".
        spatial_unit: "mm", or "px" where the file tells no size.
        orientation_known: False where the file has no direction; sides are then reported as unknown.
        stored: The way back to the file's own order.
        name: A short name for display, never a path.
        source: Where it came from, for the user's own report only; never logged.
        notes: What a reader had to assume, for the report's warnings.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    modality: str
    intensity_unit: str
    spatial_unit: Literal["mm", "px"]
    orientation_known: bool
    stored: StoredOrder
    name: str = "image"
    source: str = ""
    notes: tuple[Note, ...] = ()

    @property
    def is_rgb(self) -> bool:
        return self.voxels.ndim == 4

    @property
    def is_2d(self) -> bool:
        """True for a picture; a volume that happens to have one slice is still a volume."""
        return len(self.stored.shape) == 2

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape (Z, Y, X)."""
        return self.voxels.shape[0], self.voxels.shape[1], self.voxels.shape[2]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along Z, Y, X (in pixels where ``spatial_unit`` is "px")."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def acquisition_plane(self) -> Plane | None:
        """The plane of the slices as they were acquired: across the axis with the longest steps. None where no axis has
        steps longer by a tenth, for a picture, and where sizes are not known: then nothing tells the plane."""
        if self.is_2d or self.spatial_unit != "mm":
            return None
        second, longest = sorted(self.spacing_mm)[1:]
        return PLANES[self.spacing_mm.index(longest)] if longest > 1.1 * second else None

    @property
    def default_plane(self) -> Plane:
        """The plane that slices are taken in where nobody chooses one."""
        return self.acquisition_plane or "axial"

    def plane_axis(self, plane: Plane) -> int:
        return PLANES.index(plane)

    def slice_count(self, plane: Plane = "axial") -> int:
        return self.shape[self.plane_axis(plane)]

    def slice(self, index: int, plane: Plane = "axial") -> Slice:
        """One slice as a view, rows and columns in canonical direction.

        Raises:
            IndexError: ``index`` is outside the volume.
        """
        axis = self.plane_axis(plane)
        if not 0 <= index < self.shape[axis]:
            raise IndexError(f"slice {index} of {self.shape[axis]}")
        rows, columns = (size for i, size in enumerate(self.spacing_mm) if i != axis)
        return Slice(np.moveaxis(self.voxels, axis, 0)[index], plane, index, (rows, columns), self.modality)


@dataclass(frozen=True, slots=True)
class Slice:
    """One plane of a volume: ``pixels`` (H, W) or (H, W, 3), a view; ``spacing_mm`` (row, column)."""

    pixels: NDArray[Any]
    plane: Plane
    index: int
    spacing_mm: tuple[float, float]
    modality: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, slots=True)
class Region:
    """A box on a slice, in canonical pixels: columns ``x0..x1`` and rows ``y0..y1``, both ends included."""

    x0: int
    y0: int
    x1: int
    y1: int
    plane: Plane = "axial"
    index: int = 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked of one slice. Immutable and hashable.

    Args:
        task: A name of ``tasks.TASKS``.
        target: The phrase to segment, for the tasks that take one.
        question: The user's own words; empty means the task's wording from the model's configuration.
        answer: A given answer that the model reads instead of writing its own (grounding).
        region: A box that is drawn on the picture.
        exact: Question and answer go in verbatim: placeholders, newlines and special tokens count as such.
        max_new_tokens: Longest answer in tokens.
    """

    task: str
    target: str = ""
    question: str = ""
    answer: str | None = None
    region: Region | None = None
    exact: bool = False
    max_new_tokens: int = 256


@dataclass(frozen=True, slots=True, eq=False)
class CroppedMask:
    """A boolean mask kept as its bounding box, 2D or 3D.

    Args:
        crop: Boolean array of the box; has size 0 for an empty mask.
        offset: Index of the box's first element in the whole array.
        shape: Shape of the whole array.
    """

    crop: NDArray[np.bool_]
    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def from_full(cls, mask: NDArray[np.bool_]) -> CroppedMask:
        """Crop a whole mask; the crop is a copy, so the whole array can be freed."""
        where = [np.flatnonzero(mask.any(axis=tuple(j for j in range(mask.ndim) if j != i))) for i in range(mask.ndim)]
        if any(len(w) == 0 for w in where):
            return cls(np.zeros((0,) * mask.ndim, bool), (0,) * mask.ndim, mask.shape)
        box = tuple(slice(int(w[0]), int(w[-1]) + 1) for w in where)
        return cls(mask[box].astype(bool, copy=True), tuple(s.start for s in box), mask.shape)

    @property
    def box(self) -> tuple[slice, ...]:
        return tuple(slice(o, o + n) for o, n in zip(self.offset, self.crop.shape, strict=True))

    @property
    def count(self) -> int:
        """Number of foreground elements."""
        return int(self.crop.sum())

    def full(self) -> NDArray[np.bool_]:
        """The whole mask, newly allocated."""
        whole = np.zeros(self.shape, bool)
        whole[self.box] = self.crop
        return whole


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece of an answer, ``text[start:end]`` of the prediction, with its mask where it has one.

    Args:
        score: How sure the model is that the phrase is there, 0..1.
        mask: 2D mask on the slice, or None where the answer gives no region.
        target: The vocabulary or prompt name it stands for.
    """

    text: str
    start: int
    end: int
    score: float
    mask: CroppedMask | None = None
    target: str = ""


@dataclass(frozen=True, slots=True)
class Caution:
    """Why the answer to a question lies outside of what the model has learnt.

    Args:
        code: "subject_not_learnt": the question asks for something that is not among the model's targets for the
            modality; "no_target_named": it names none of them.
        subjects: The words of the question that are not among the targets.
    """

    code: Literal["subject_not_learnt", "no_target_named"]
    subjects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one prompt on one slice.

    Args:
        text: Clean text for people.
        raw_text: As generated, special tokens kept.
        truncated: The length limit cut the answer.
        seconds: Share of the wall time that this answer took.
        likelihood: Of an answer that is one of a few (yes or no, the name of a box): the share of the model's
            likelihood that this one has among them, 0..1; not calibrated. None for other answers.
        caution: Why an answer in words should not be relied on; None where there is no such reason.
    """

    prompt: Prompt
    plane: Plane
    index: int
    text: str
    raw_text: str
    phrases: tuple[Phrase, ...]
    truncated: bool = False
    seconds: float = 0.0
    likelihood: float | None = None
    caution: Caution | None = None

    @property
    def masks(self) -> tuple[CroppedMask, ...]:
        return tuple(p.mask for p in self.phrases if p.mask is not None)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Size and intensity of a finding; lengths are None where the file tells no size in mm."""

    voxel_count: int
    volume_ml: float | None
    area_mm2: float | None
    longest_axial_diameter_mm: float | None
    perpendicular_diameter_mm: float | None
    intensity_mean: float | None
    intensity_sd: float | None
    intensity_unit: str
    slice_first: int
    slice_last: int
    slice_largest: int
    side: Literal["left", "right", "both", "midline", "unknown"]
    touches_edge: bool


@dataclass(frozen=True, slots=True)
class Tally:
    """What one row stands for where it stands for many: a population of like things, or a network.

    Args:
        instances: How many single things, told apart also where they touch; None for a network.
        mean_area: Mean area of one, in ``unit`` squared; None for a network.
        sd_area: Standard deviation of the areas.
        density: Instances on a square of ``density_side`` by ``density_side``; None for a network.
        fraction: Share of the picture's area that they cover, 0..1.
        length: Length of the network's centre line in ``unit``; None for a population.
        unit: "mm" or "px": of lengths, and squared of areas.
        density_side: 1 in millimetres, 100 in pixels.
    """

    instances: int | None
    mean_area: float | None
    sd_area: float | None
    density: float | None
    fraction: float
    length: float | None
    unit: Literal["mm", "px"]
    density_side: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in a volume or picture as a person counts it: an organ, a lesion, or a population or network of them.

    Args:
        number: Its value in the labels image, from 1.
        phrase: The words the model used or was asked with.
        target: Name the slices were linked by.
        presence: 0..1, how sure the model is that it is there.
        mask: 3D mask in canonical (Z, Y, X) order.
        slices: Canonical indices of the slices that carry it, ascending.
        flags: Any of "one_slice", "touches_edge", "low_score".
        tally: Where the row stands for many; None where it is one thing.
    """

    number: int
    phrase: str
    target: str
    presence: float
    mask: CroppedMask
    plane: Plane
    slices: tuple[int, ...]
    measurements: Measurements
    flags: tuple[str, ...] = ()
    tally: Tally | None = None


@dataclass(frozen=True, slots=True)
class Absence:
    """A target that was looked for and not found: "No findings" as an answer with a number on it."""

    target: str
    presence: float
    slices_searched: int


@dataclass(frozen=True, slots=True)
class ReaderEdit:
    """What the person who read a report did with some of its findings.

    Args:
        code: "rejected" findings are left out; "renamed" ones have another target; "redrawn" ones another mask, and
            are measured anew.
        numbers: Numbers of the findings.
    """

    code: Literal["rejected", "renamed", "redrawn"]
    numbers: tuple[int, ...]


Ended = Literal["finished", "cancelled", "failed", "interrupted"]
"""How a run ended: to its end; stopped by the user; by an error; or with its program, before it had an end."""

ENDINGS: tuple[Ended, ...] = get_args(Ended)


@dataclass(frozen=True, slots=True)
class Report:
    """What one run over a volume says. Can be rebuilt from its own JSON (``report.from_json``)."""

    findings: tuple[Finding, ...]
    absences: tuple[Absence, ...]
    narrative: str
    sentences: tuple[tuple[int, str], ...]
    image: Mapping[str, Any]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    warnings: tuple[str, ...]
    slices_done: tuple[int, ...]
    slices_skipped: tuple[int, ...]
    slices_total: int
    seconds: float
    ended: Ended = "finished"
    notice: str = NOTICE
    edits: tuple[ReaderEdit, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all was examined that was asked for."""
        return self.ended == "finished"

    def renumbered(self, findings: tuple[Finding, ...]) -> Report:
        """The same report with other findings, numbered from 1 in the order given."""
        return replace(self, findings=tuple(replace(f, number=n) for n, f in enumerate(findings, start=1)))
