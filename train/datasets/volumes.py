"""From a volume and its masks to one record an axial slice; what all converters of folders share."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unibiomed_core import vocabulary
from unibiomed_core.errors import DataError, UniBiomedError
from unibiomed_core.io import FORMATS, guard, picture
from unibiomed_core.modalities import choose_window, to_rgb
from unibiomed_core.types import StoredOrder, Volume

from ..data.body_parts import foreign_targets
from ..data.records import Record, region_record, resize_mask, resize_picture
from .request import ConversionRequest, Summary

MINIMUM_PIXELS = 12
"""A target smaller than this after resizing is neither asked nor counted as absent."""

DARKEST = 8
"""A slice whose brightest value, 0..255, is no higher holds nothing but air."""

LARGEST_SHIFT = 0.5
"""In voxels: how far a corner of a mask's grid may lie from the image's; headers are rounded differently by tools."""

ROUNDED = 1e-3
"""How far from a whole number a label value may be; interpolated masks have values in between."""

_OWN_ERROR = 1.001
"""Room for the single precision that a slope is kept in."""

LARGEST_LABEL = 2**31 - 1

BACKGROUND = "background"
"""A label of this name is known and no target; 0 is background unless a table says otherwise."""

UNREADABLE = (UniBiomedError, OSError, ValueError, EOFError, zlib.error)
"""What a file that cannot be used raises; a converter refuses the item and goes on."""

MaskOf = Callable[[int], NDArray[np.bool_]]
"""Canonical axial index -> (Y, X) bool."""


def frame_of(
    job: ConversionRequest,
    name: str,
    *,
    group: str,
    split: str,
    modality: str,
    targets: Iterable[str] | None,
    source: str,
) -> Record:
    """What all slices of one image have in common; no picture yet.

    Args:
        name: Unique in the data set.
        targets: What the source annotates exhaustively; None where it says nothing of targets.
        source: The image file, from the source's folder.
    """
    return Record(
        id=f"{job.dataset}/{name}",
        dataset=job.dataset,
        split=split,
        group=group,
        modality=modality,
        licence=job.licence,
        image=b"",
        size=(0, 0),
        foreign=() if targets is None else foreign_targets(modality, frozenset(targets), job.body),
        findings_known=job.findings_known,
        source=source,
    )


def picture_record(frame: Record, rgb: NDArray[np.uint8], side: int, **known: Any) -> Record:
    """The record of one picture (H, W, 3).

    Args:
        known: Further fields of it, and those in which it differs from the frame.
    """
    return replace(frame, image=resize_picture(rgb, side), size=(rgb.shape[0], rgb.shape[1]), **known)


def slice_records(
    volume: Volume, masks: Mapping[str, MaskOf], frame: Record, side: int, step: int = 1, unsure: MaskOf | None = None
) -> Iterator[Record]:
    """Records of a volume's axial slices that show more than air, one at a time; one record for a picture.

    Args:
        masks: Target -> its mask on a slice.
        frame: What all slices have in common; its id becomes ``volume`` and the first part of each slice's id.
        side: Side of the pictures in pixels; 0 keeps the source's size.
        step: Every n-th slice.
        unsure: Where nobody looked; a slice with such pixels claims neither absences nor that its findings are known.
    """
    window = choose_window(volume)
    spacing = volume.spacing_mm[1:] if volume.spatial_unit == "mm" else (0.0, 0.0)
    for index in range(0, volume.shape[0], 1 if volume.is_2d else step):
        picture = to_rgb(volume.voxels[index], window)
        if not volume.is_2d and picture.max() <= DARKEST:
            continue
        present, absent = [], []
        for target, mask_of in masks.items():
            mask = mask_of(index)
            small = resize_mask(mask, side)
            if small.sum() >= MINIMUM_PIXELS:
                present.append(region_record(target, small))
            elif not mask.any():
                absent.append(target)
        sure = unsure is None or not unsure(index).any()
        yield replace(
            frame,
            id=frame.id if volume.is_2d else f"{frame.id}/{index}",
            image=resize_picture(picture, side),
            size=(picture.shape[0], picture.shape[1]),
            spacing_mm=(float(spacing[0]), float(spacing[1])),
            volume="" if volume.is_2d else frame.id,
            slice=-1 if volume.is_2d else index,
            regions=tuple(present),
            absent=tuple(absent) if sure else (),
            findings_known=frame.findings_known and sure,
        )


def split_background(labels: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, tuple[int, ...]], frozenset[int]]:
    """The targets of a table without its background, and all values that it knows."""
    targets = {name: values for name, values in labels.items() if name.lower() != BACKGROUND}
    return targets, frozenset(v for values in labels.values() for v in values)


def label_masks(layers: Sequence[NDArray[Any]], labels: Mapping[str, tuple[int, ...]]) -> dict[str, MaskOf]:
    """Target -> mask of the voxels that carry one of its values in any of the (Z, Y, X) layers."""

    def mask_of(values: tuple[int, ...]) -> MaskOf:
        def at(index: int) -> NDArray[np.bool_]:
            found = [np.isin(layer[index], values) for layer in layers]
            return np.any(found, axis=0)

        return at

    return {target: mask_of(values) for target, values in labels.items()} if layers else {}


def check_labels(layer: NDArray[Any], known: Iterable[int], name: str) -> None:
    """Refuse a label map with values that nobody named; 0 is background.

    Raises:
        DataError: It has some.
    """
    allowed = np.array(sorted({0, *known}))
    unknown: set[int] = set()
    for plane in layer:  # a volume at once would be sorted as a whole
        unknown.update(int(v) for v in np.unique(plane[~np.isin(plane, allowed)]))
    if unknown:
        values = sorted(unknown)
        raise DataError(
            "Unknown label value",
            f"'{name}' holds {', '.join(str(v) for v in values[:8])}{' ...' if len(values) > 8 else ''}",
            f"one of {', '.join(str(v) for v in allowed)}",
            "Name the value among the data set's labels, or correct the mask.",
        )


def read_labels(path: Path, order: StoredOrder, summary: Summary | None = None) -> NDArray[Any]:
    """A label map in the canonical (Z, Y, X) order of its image, in a compact integer dtype.

    Palette pictures give their indices. A header that tells no orientation is compared by size alone.

    Args:
        path: In any format that images are read from.
        order: ``Volume.stored`` of the image.
        summary: Gets a note where values had to be rounded.

    Raises:
        ReadError: The file is damaged or of an unknown type.
        DataError: It is of another size or on another grid than the image, or its values are not whole numbers.
    """
    if not path.is_file():
        raise DataError("Image without mask", f"there is no '{path.name}'", f"a mask in {path.parent.name}/")
    affine: NDArray[np.float64] | None = None
    module = next((m for suffix, m in FORMATS.items() if path.name.lower().endswith(suffix)), "")
    if module in {"nifti", "itk"}:
        stored = import_module(f"unibiomed_core.io.{module}").load(path)
        values, affine = stored.values, stored.affine if stored.orientation_known else None
    else:
        values = picture_values(path, summary=summary)
    if values.shape != tuple(order.shape):
        raise DataError(
            "Mask of another size", f"'{path.name}' is {_times(values.shape)}", f"the image's {_times(order.shape)}"
        )
    if affine is not None and len(order.shape) == 3:
        _check_grid(affine, order, path.name)
    step = _stored_step(path) if module == "nifti" and values.dtype.kind == "f" else 0.0
    return order.to_canonical(whole_numbers(values, path.name, step, summary))


def picture_values(path: Path, brightest: bool = False, summary: Summary | None = None) -> NDArray[Any]:
    """(H, W) as shown: grey values, palette indices, or 0 and 1; grey that is kept as colour becomes one channel.

    Args:
        brightest: Take the brightest channel of a colour picture, where only black or not black matters.
        summary: Gets what the reader has to say.

    Raises:
        ReadError: The picture is damaged or is none.
        DataError: It is a colour picture.
    """
    values, notes = picture.load_mask(path)
    if summary is not None:
        summary.note_reader(notes, path.name)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1]  # what shows through a mask is no label
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim == 3 and brightest:
        values = values.max(axis=2)
    if values.ndim != 2:
        raise DataError("Colours instead of labels", f"'{path.name}' is a colour picture", "one label value a pixel")
    return values.astype(np.uint8) if values.dtype == np.bool_ else values


def whole_numbers(values: NDArray[Any], name: str, step: float = 0.0, summary: Summary | None = None) -> NDArray[Any]:
    """The same values in the smallest integer dtype that holds them.

    Values next to whole numbers are rounded: a header's slope or another tool's arithmetic leaves 2.0000001 of 2.

    Args:
        step: What neighbouring stored numbers differ by, where the file keeps integers and a slope; a value may be off
            by half of it. 0 where it keeps the values themselves.
        summary: Gets a note where values were rounded.

    Raises:
        DataError: Some are not whole, or too large for a label.
    """
    if values.dtype.kind == "f":
        values = _rounded(values, name, step, summary)
    low, high = int(values.min()), int(values.max())
    return values.astype(np.promote_types(np.min_scalar_type(low), np.min_scalar_type(high)), copy=False)


def _rounded(values: NDArray[Any], name: str, step: float, summary: Summary | None) -> NDArray[Any]:
    whole = np.rint(values)
    with np.errstate(invalid="ignore"):
        distance = np.abs(values - whole)
    off = float(distance.max())  # not a number where a value is none
    if not off <= (max(ROUNDED, 0.5 * step) if step < 1 else ROUNDED) * _OWN_ERROR:
        worst = values.flat[int(np.nanargmax(distance))] if np.isfinite(values).any() else np.nan
        raise DataError(
            "Label values that are not whole numbers",
            f"'{name}' holds {float(worst):g}{'' if np.isfinite(off) else ' and values that are no numbers'}",
            "whole numbers",
            "A mask that was resampled by interpolation has to be made again with nearest neighbours.",
        )
    if float(np.abs(whole).max()) > LARGEST_LABEL:
        raise DataError("Label values too large", f"'{name}' holds {np.abs(whole).max():g}", f"up to {LARGEST_LABEL}")
    if off and summary is not None:
        summary.note("labels_rounded", name)
    return whole.astype(np.int64)


def _stored_step(path: Path) -> float:
    """By how much the values of neighbouring stored integers differ; 0 for a file that keeps fractions."""
    import nibabel

    with guard.reading(path, "a NIfTI file"):
        image = nibabel.nifti1.Nifti1Image.from_filename(path)
        slope = getattr(image.dataobj, "slope", 1.0)
        return abs(float(slope)) if image.get_data_dtype().kind in "iu" else 0.0


def _check_grid(affine: NDArray[np.float64], order: StoredOrder, name: str) -> None:
    """Compare the places of the eight corner voxels in mm."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in order.shape], [1])).reshape(4, -1)
    shift_mm = float(np.linalg.norm(((affine - order.affine) @ corners)[:3], axis=0).max())
    spacing_mm = np.linalg.norm(order.affine[:3, :3], axis=0)
    if shift_mm > LARGEST_SHIFT * spacing_mm.min():
        raise DataError(
            "Mask on another grid",
            f"a corner of '{name}' lies {shift_mm:.1f} mm from the image's",
            "the same origin, spacing and directions in both headers",
            "Resample the mask onto its image.",
        )


def target_name(name: str, modality: str) -> str:
    """The canonical name where the vocabulary has it for this modality, else the source's own, lower case.

    Underscores become spaces, as names are put into sentences; "kidney_right" is looked for as "right kidney", too.
    """
    wording = " ".join(name.replace("_", " ").split()).lower()
    words = wording.split()
    turned = " ".join([words[-1], *words[:-1]]) if words[-1:] in (["left"], ["right"]) else wording
    wanted = {vocabulary.normalise(wording), vocabulary.normalise(turned)}
    # A synonym such as "vessel" means another thing in another modality, where only names count.
    for target in vocabulary.for_modality(modality):
        if wanted & {vocabulary.normalise(name) for name in (target.name, *target.synonyms)}:
            return target.name
    return next((name for name in vocabulary.targets() if vocabulary.normalise(name) in wanted), wording)


def named_targets(labels: Mapping[str, tuple[int, ...]], modality: str) -> dict[str, tuple[int, ...]]:
    """The same table under :func:`target_name`; labels that are one target there are put together."""
    named: dict[str, tuple[int, ...]] = {}
    for name, values in labels.items():
        target = target_name(name, modality)
        named[target] = tuple(dict.fromkeys((*named.get(target, ()), *values)))
    return named


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
