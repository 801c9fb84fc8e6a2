"""Which picture belongs to which masks: by folders side by side, folders of like name, or names beside each other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from .names import folded, respelt

IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "originals", "original", "pictures", "jpegimages"})
MASK_FOLDERS = frozenset(
    {
        "masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation",
        "groundtruth", "groundtruths", "gt", "segmentationclass", "1stmanual",
    }
)  # fmt: skip
"""In lower case, without spaces, hyphens and underscores."""

MASK_ENDS = ("_mask", "-mask", "_segmentation", "_seg", "_label", "_gt", "_anno", "_contour", "_labelids")
"""What a mask's name may have more than its picture's; a number may follow ("_mask_1")."""

_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})

_Key = tuple[tuple[str, ...], str]
"""Folders without the one that says "images" or "masks", and the name without suffix and mask's end."""


@dataclass(frozen=True)
class Pair:
    """A picture and its masks; one of both may be missing.

    Args:
        image: Path below the source; empty where masks have no picture.
        masks: Target -> mask files; "" where the files themselves tell the targets.
        home: The folder of this data set where the source holds several, else empty.
        twin: Another picture has the same name and thus the same masks.
        spelt: The masks' name where it is spelt otherwise than the picture's, else empty.
    """

    image: str
    masks: Mapping[str, tuple[str, ...]]
    home: str = ""
    twin: bool = False
    spelt: str = ""

    @property
    def path(self) -> str:
        """The picture, or the first mask where there is none."""
        return self.image or next(iter(self.masks.values()))[0]


def find_pairs(paths: Sequence[PurePosixPath]) -> list[Pair]:
    """Pictures and masks by the first way of three that pairs any: ``images/`` and ``masks/`` (with folders of targets
    in it, or "<target> masks" beside it), ``train/`` and ``train_gt/``, ``a.png`` and ``a_mask.png``. Pictures that are
    elsewhere are no part of the layout.
    """
    for way in (_side_by_side, _twin_folders, _beside):
        images: dict[_Key, list[str]] = {}
        masks: dict[_Key, dict[str, list[str]]] = {}
        for path, key, target in way(paths):
            if target is None:
                images.setdefault(key, []).append(str(path))
            else:
                masks.setdefault(key, {}).setdefault(target, []).append(str(path))
        spelt = respelt(masks, images, _loose)
        for mask, image in spelt.items():
            masks[image] = masks.pop(mask)
        if images.keys() & masks.keys():
            return _paired(images, masks, way is _side_by_side, {image: mask[1] for mask, image in spelt.items()})
    return []


def unpaired(paths: Sequence[PurePosixPath]) -> str:
    """Why pictures and masks in folders that are called so pair nowhere, for a message; empty where there are none."""
    found: dict[bool, list[str]] = {True: [], False: []}
    for path, _, target in _side_by_side(paths):
        found[target is None].append(str(path))
    if not found[False] or not found[True]:
        return ""
    return (
        f"{len(found[True])} pictures and {len(found[False])} masks of which no two have one name, "
        f"such as {found[True][0]} and {found[False][0]}"
    )


def _loose(key: _Key) -> _Key:
    """What spellings of one place have in common; a mask may keep its picture's suffix ("a.jpg.png")."""
    folders, name = key
    return tuple(map(folded, folders)), re.sub(r"\.(?:png|jpe?g|tiff?|bmp)$", "", folded(name))


def _paired(
    images: Mapping[_Key, list[str]],
    masks: Mapping[_Key, Mapping[str, list[str]]],
    with_home: bool,
    spelt: Mapping[_Key, str],
) -> list[Pair]:
    pairs = []
    for key in sorted(images.keys() | masks.keys()):
        own = {target: tuple(files) for target, files in sorted(masks.get(key, {}).items())}
        # Elsewhere a folder is a class or a patient.
        homes = [folder for folder in key[0] if folder.lower() not in _SPLITS] if with_home else []
        for number, image in enumerate(images.get(key, [""])):
            pairs.append(Pair(image, own, homes[-1] if homes else "", number > 0, spelt.get(key, "")))
    return pairs


def _side_by_side(paths: Sequence[PurePosixPath]) -> Iterator[tuple[PurePosixPath, _Key, str | None]]:
    images, masks = [], []
    for path in paths:
        folders = path.parts[:-1]
        for place in reversed(range(len(folders))):
            rest = (*folders[:place], *folders[place + 1 :])
            if _plain(folders[place]) in IMAGE_FOLDERS:
                images.append((path, (rest, _image_name(path))))
                break
            if (target := _mask_target(folders[place])) is not None:
                masks.append((path, (rest, mask_name(path.stem)), target))
                break
    known = {key[0] for _, key in images}
    yield from ((path, key, None) for path, key in images)
    for path, (folders, name), target in masks:
        if folders not in known and not target:
            # A folder more than the pictures have is the target's.
            for place in reversed(range(len(folders))):
                if (without := (*folders[:place], *folders[place + 1 :])) in known:
                    folders, target = without, folders[place]
                    break
        yield path, (folders, name), target


def _twin_folders(paths: Sequence[PurePosixPath]) -> Iterator[tuple[PurePosixPath, _Key, str | None]]:
    for path in paths:
        folders = path.parts[:-1]
        bare = tuple(re.sub(r"[_-](gt|masks?|labels?|groundtruth)$", "", f, flags=re.IGNORECASE) for f in folders)
        is_mask = bare != folders
        yield path, (bare, mask_name(path.stem) if is_mask else _image_name(path)), "" if is_mask else None


def _beside(paths: Sequence[PurePosixPath]) -> Iterator[tuple[PurePosixPath, _Key, str | None]]:
    there = {(path.parts[:-1], _image_name(path)) for path in paths}
    for path in paths:
        key = path.parts[:-1], mask_name(path.stem)
        is_mask = key[1] != path.stem and key in there
        yield path, key if is_mask else (key[0], _image_name(path)), "" if is_mask else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())


def _mask_target(folder: str) -> str | None:
    """Empty for a folder of masks, the target for "<target> masks", None for any other folder."""
    if _plain(folder) in MASK_FOLDERS:
        return ""
    found = re.fullmatch(r"(.+?) masks?", folder.lower())
    return found[1] if found else None


def _image_name(path: PurePosixPath) -> str:
    return re.sub(r"_orig$", "", path.stem)


def mask_name(stem: str) -> str:
    """A mask's name without the end that says that it is one; unchanged where it has none."""
    for name in (stem, re.sub(r"_\d+$", "", stem)):
        for end in MASK_ENDS:
            if name.lower().endswith(end):
                return name[: -len(end)]
    return stem
