"""The layout with one ``dataset.json`` a folder: 8-bit pictures or NIfTI volumes with integer label maps.

A row of ``SOURCES`` says what the labels of a data set are called here, which body part is seen, and whether a picture
without a finding is a normal one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.data.records import QuestionRecord, Record, RegionRecord, encode_mask, resize_mask, resize_picture
from unibiomed_core import vocabulary
from unibiomed_core.errors import DataError, UniBiomedError
from unibiomed_core.modalities import choose_window, modality, to_rgb

MINIMUM_PIXELS = 12
"""A target smaller than this after resizing is neither asked nor counted as absent."""


@dataclass(frozen=True)
class Source:
    """How one data set is read.

    Args:
        labels: Target name -> the label values it is made of.
        body: Body part; decides which other targets cannot be in the picture.
        findings_known: A picture without a finding label shows none of the source's findings.
        step: Every n-th slice of a volume.
    """

    labels: Mapping[str, tuple[int, ...]]
    body: str
    findings_known: bool = False
    step: int = 1
    modality: str = ""


_ORGANS_CT = {
    "spleen": (1,), "right kidney": (2,), "left kidney": (3,), "gallbladder": (4,), "liver": (5,), "stomach": (6,),
    "pancreas": (7,), "lung": (10, 11, 13, 14), "small bowel": (18,), "duodenum": (19,), "colon": (20,),
    "vertebra": (30, 31, 32, 33), "aorta": (52,), "inferior vena cava": (63,), "spinal cord": (79,),
    "left iliopsoas": (88,), "right iliopsoas": (89,),
}  # fmt: skip
_ORGANS_MR = {
    "spleen": (1,), "right kidney": (2,), "left kidney": (3,), "gallbladder": (4,), "liver": (5,), "stomach": (6,),
    "pancreas": (7,), "small bowel": (13,), "duodenum": (14,), "colon": (15,), "vertebra": (19,), "spinal cord": (21,),
    "aorta": (23,), "inferior vena cava": (24,), "left iliopsoas": (48,), "right iliopsoas": (49,),
}  # fmt: skip

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "av-wide-fundus": Source({"retinal blood vessel": (1,), "optic disc": (2,)}, "retina"),
        "brats2013-glioma": Source(
            {
                "brain tumour": (1, 2, 3, 4), "tumour core": (1, 3, 4), "enhancing tumour": (4,),
                "peritumoural oedema": (2,),
            },
            "brain",
            True,
            3,
        ),
        "busi-breast-us": Source({"breast lesion": (1,)}, "breast", True),
        "chaos-ct-liver-slices": Source({"liver": (1,)}, "abdomen"),
        "chase-db1": Source({"retinal blood vessel": (1,)}, "retina"),
        "covid-cxr-structures": Source(
            {
                "right lung": (1,), "left lung": (2,), "lung fields": (1, 2), "cardiomediastinum": (3,),
                "airways": (4,), "ground-glass opacity": (5,), "consolidation": (6,), "pleural effusion": (7,),
                "pneumothorax": (8,),
                "endotracheal tube": (9,), "central venous line": (10,), "monitoring probe": (11,),
                "nasogastric tube": (12,), "tubing": (13,),
            },
            "chest",
            True,
        ),
        "deeplesion-ct-sample": Source({"lesion": (1,)}, "body"),
        "drive": Source({"retinal blood vessel": (1,), "optic disc": (2,)}, "retina"),
        "dsb2018-stained-nuclei": Source({"cell nucleus": (1,)}, "tissue"),
        "isic2017-sample": Source({"skin lesion": (1,)}, "skin", True),
        "kvasir-seg": Source({"polyp": (1,)}, "colon", True),
        "lung-tumour-ct": Source({"lung tumour": (1,)}, "chest", True, 2),
        "montgomery-cxr": Source({"lung fields": (1,)}, "chest"),
        "ms-lesions": Source({"white-matter lesion": (1,)}, "brain", True, 3),
        "msd-hippocampus": Source(
            {"hippocampus": (1, 2), "anterior hippocampus": (1,), "posterior hippocampus": (2,)}, "brain", step=4
        ),
        "octa-faz": Source({"foveal avascular zone": (1,)}, "retina"),
        "ph2": Source({"skin lesion": (1,)}, "skin", True),
        "proton-mri-lung-lobes": Source(
            {
                "lung": (1, 2, 3, 4, 5), "left lung": (1, 2), "right lung": (3, 4, 5), "left lower lobe": (1,),
                "left upper lobe": (2,), "right lower lobe": (3,), "right middle lobe": (4,), "right upper lobe": (5,),
            },
            "chest",
            step=3,
        ),
        "shenzhen-cxr": Source({"lung fields": (1,)}, "chest"),
        "soft-tissue-sarcoma-pet-ct-mr": Source({"soft-tissue sarcoma": (1,)}, "limb", True, 4),
        "spinal-cord-mri": Source({"spinal cord": (1,), "spinal cord grey matter": (2,)}, "spine", step=3),
        "sunnybrook-cardiac": Source({"left ventricular cavity": (1,)}, "heart"),
        "tnbc-nuclei-sample": Source({"cell nucleus": (1,)}, "tissue"),
        "totalsegmentator-ct-sample": Source(_ORGANS_CT, "abdomen"),
        "totalsegmentator-mr-sample": Source(_ORGANS_MR, "abdomen"),
        "usgra-nerve-vessel": Source({"nerve": (1,), "blood vessel": (2,)}, "peripheral nerve"),
        "vqa-rad": Source({}, "any"),
        "wbc-smear": Source(
            {"white blood cell": (1, 2), "white blood cell nucleus": (1,), "white blood cell cytoplasm": (2,)}, "blood"
        ),
    }
)  # fmt: skip

_MAY_SHARE_A_PICTURE = frozenset({"chest", "abdomen", "body", "any", "spine"})
"""Parts of the trunk; a scan of one may show another, so its targets are no sure negatives there."""


@dataclass
class Summary:
    """What a conversion made and what it refused, with the reason."""

    records: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[str, str]] = field(default_factory=list)


def convert(root: Path, side: int, summary: Summary, splits: tuple[str, ...] = ("train", "test")) -> Iterator[Record]:
    """Records of every data set below ``root``, in the order of names.

    Raises:
        DataError: ``root`` holds no data set of this layout, or one that has no row in ``SOURCES``.
    """
    folders = sorted(p.parent for p in root.glob("*/dataset.json"))
    if not folders:
        raise DataError("Unknown data layout", f"no dataset.json below {root}", "folders with a dataset.json each")
    for folder in folders:
        if folder.name not in SOURCES:
            raise DataError("Unknown data set", f"'{folder.name}' has no label table", ", ".join(SOURCES))
        about = json.loads((folder / "dataset.json").read_text("utf-8"))
        for item in about["items"]:
            if item["split"] not in splits:
                continue
            try:
                for record in _convert_item(folder, about, item, SOURCES[folder.name], side):
                    summary.records[f"{record.dataset}/{record.split}"] += 1
                    yield record
            except (UniBiomedError, OSError, ValueError) as cause:
                summary.refused.append((f"{folder.name}/{item['id']}", str(cause)))


def _convert_item(
    folder: Path, about: Mapping[str, Any], item: Mapping[str, Any], source: Source, side: int
) -> Iterator[Record]:
    from unibiomed_core.io import read

    named = item.get("modality") or ("" if about["modality"].startswith("mixed") else about["modality"])
    # A picture of unknown modality is 8-bit and read as it is; the record says that its modality is unknown.
    kind = modality(named).name if named else "xray"
    volume = read(folder / item["image"], kind)
    layers = [_labels(folder / item[key], volume) for key in ("mask", "mask_findings") if key in item]
    window = choose_window(volume)
    text = item.get("text") or {}
    step = source.step if not volume.is_2d else 1
    for index in range(0, volume.shape[0], step):
        pixels = volume.voxels[index]
        picture = to_rgb(pixels, window)
        if not volume.is_2d and picture.max() <= 8:
            continue  # nothing but air
        present, absent = [], []
        for target, values in source.labels.items():
            mask = np.zeros(picture.shape[:2], bool)
            for layer in layers:
                mask |= np.isin(layer[index], values)
            small = resize_mask(mask, side)
            if small.sum() >= MINIMUM_PIXELS:
                present.append(RegionRecord(target, encode_mask(small)))
            elif not mask.any():
                absent.append(target)
        spacing = volume.spacing_mm[1:] if volume.spatial_unit == "mm" else (0.0, 0.0)
        yield Record(
            id=f"{folder.name}/{item['id']}" + ("" if volume.is_2d else f"/{index}"),
            dataset=folder.name,
            split=item["split"],
            group=str(item.get("group", item["id"])),
            modality=kind if named else "",
            licence=about["licence"],
            image=resize_picture(picture, side),
            size=(picture.shape[0], picture.shape[1]),
            spacing_mm=(float(spacing[0]), float(spacing[1])),
            volume="" if volume.is_2d else f"{folder.name}/{item['id']}",
            slice=-1 if volume.is_2d else index,
            regions=tuple(present),
            absent=tuple(absent),
            foreign=_foreign(kind, source),
            findings_known=source.findings_known or text.get("image_class") == "normal",
            image_class=text.get("image_class", ""),
            questions=tuple(
                QuestionRecord(q["question"], str(q["answer"]), q["answer_type"] == "closed")
                for q in text.get("qa", ())
            ),
        )


def _labels(path: Path, volume: Any) -> NDArray[np.integer[Any]]:
    """A label map in the canonical order of its image, (Z, Y, X)."""
    import nibabel
    from PIL import Image

    stored = np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj if path.suffix == ".gz" else Image.open(path))
    if stored.shape[: len(volume.stored.shape)] != tuple(volume.stored.shape):
        raise DataError(
            "Mask of another size", f"{path.name} is {stored.shape}", f"the image's {tuple(volume.stored.shape)}"
        )
    return volume.stored.to_canonical(stored.astype(np.int32))


def _foreign(kind: str, source: Source) -> tuple[str, ...]:
    """Targets that cannot be in a picture of this modality and body part."""
    known = vocabulary.targets().values()
    own = {vocabulary.targets()[t].anatomy for t in source.labels} | {source.body}
    if source.body == "any":
        return ()
    return tuple(
        t.name
        for t in known
        if t.name not in source.labels
        and kind in t.contexts
        and t.anatomy not in own
        and t.name != "lesion"
        and not ({t.anatomy, source.body} <= _MAY_SHARE_A_PICTURE)
    )
