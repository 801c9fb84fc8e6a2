"""The layout with one ``dataset.json`` a folder: 8-bit pictures or NIfTI volumes with integer label maps.

A row of ``SOURCES`` says what the labels of a data set are called here, which body part is seen, and whether a picture
without a finding is a normal one; a folder without a row is read by its own labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from train.data.records import QuestionRecord, Record
from train.datasets import slices
from train.datasets.job import Job, Summary
from train.datasets.names import Names
from unibiomed_core.errors import DataError
from unibiomed_core.modalities import modality


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


def fits(source: Path) -> bool:
    """Whether the folder, or a folder in it, has a ``dataset.json`` with items."""
    return any(_is_about(folder / "dataset.json") for folder in _folders(source))


def convert(job: Job, summary: Summary) -> Iterator[Record]:
    """Records of one data set, or of every data set below the folder in the order of names.

    Raises:
        DataError: The folder holds no data set of this layout, or a ``dataset.json`` cannot be used.
    """
    folders = [f for f in _folders(job.source) if (f / "dataset.json").is_file()]
    if not folders:
        raise DataError(
            "Unknown data layout", f"no dataset.json in or below {job.source.name}", "folders with a dataset.json each"
        )
    for folder in folders:
        about = _read(folder / "dataset.json")
        source = SOURCES.get(folder.name) or Source(
            job.labels or _own_labels(about), job.body, job.findings_known, job.step
        )
        dataset = job.dataset if folder == job.source else folder.name
        names = Names(folder, summary)
        for item in about["items"]:
            try:
                yield from _convert_item(folder, dataset, about, item, source, job, names)
            except slices.UNREADABLE as cause:
                summary.refuse(f"{dataset}/{item.get('id', '?')}", cause)


def _folders(source: Path) -> list[Path]:
    if (source / "dataset.json").is_file():
        return [source]
    return sorted(p.parent for p in source.glob("*/dataset.json"))


def _is_about(path: Path) -> bool:
    try:
        return "items" in _read(path)
    except DataError:
        return False


def _read(path: Path) -> dict[str, Any]:
    expected = "a JSON object with 'items', 'modality' and 'licence'"
    try:
        about = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError("Data set description cannot be read", f"{path.parent.name}: {cause}", expected) from cause
    if not isinstance(about, dict) or (missing := {"items", "modality", "licence"} - about.keys()):
        found = f"lacks {', '.join(sorted(missing))}" if isinstance(about, dict) else "is no object"
        raise DataError("Data set description cannot be read", f"{path.parent.name}/{path.name} {found}", expected)
    return about


def _own_labels(about: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """``{"1": "liver"}`` as a table of targets."""
    kind = "" if about["modality"].startswith("mixed") else modality(about["modality"]).name
    named = {str(name): (int(value),) for value, name in about.get("labels", {}).items()}
    return slices.named_targets(named, kind)


def _convert_item(
    folder: Path,
    dataset: str,
    about: Mapping[str, Any],
    item: Mapping[str, Any],
    source: Source,
    job: Job,
    names: Names,
) -> Iterator[Record]:
    from unibiomed_core.io import read

    if missing := {"id", "split", "image"} - item.keys():
        raise DataError("Incomplete item", f"it lacks {', '.join(sorted(missing))}", "id, split and image")
    named = item.get("modality") or ("" if about["modality"].startswith("mixed") else about["modality"])
    # A picture of unknown modality is 8-bit and read as it is; the record says that its modality is unknown.
    kind = modality(named).name if named else "xray"
    volume = read(names.find(item["image"], [folder]), kind)
    if names.summary is not None:
        names.summary.note_reader(volume.notes, str(item["id"]))
    files = [names.find(item[key], [folder], "mask") for key in ("mask", "mask_findings") if key in item]
    layers = [slices.read_labels(file, volume.stored, names.summary) for file in files]
    known = {v for values in source.labels.values() for v in values} | {int(v) for v in about.get("labels", {})}
    for file, layer in zip(files, layers, strict=True):
        slices.check_labels(layer, known, file.name)
    text = item.get("text") or {}
    frame = Record(
        id=f"{dataset}/{item['id']}",
        dataset=dataset,
        split=item["split"],
        group=str(item.get("group", item["id"])),
        modality=kind if named else "",
        licence=about["licence"],
        image=b"",
        size=(0, 0),
        foreign=slices.foreign_targets(kind, source.labels, source.body),
        findings_known=source.findings_known or text.get("image_class") == "normal",
        image_class=text.get("image_class", ""),
        questions=tuple(
            QuestionRecord(q["question"], str(q["answer"]), q["answer_type"] == "closed") for q in text.get("qa", ())
        ),
        caption=text.get("caption", ""),
        source=item["image"],
    )
    # Without a mask, nothing is known to be absent.
    masks = slices.label_masks(layers, source.labels)
    yield from slices.slice_records(volume, masks, frame, job.side, source.step)
