"""The layout with one ``dataset.json`` a folder: 8-bit pictures or NIfTI volumes with integer label maps.

A row of ``SOURCES`` says what the labels of a data set are called here, and whether a picture without a finding is a
normal one; a folder without a row is read by its own labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from unibiomed_core.errors import DataError
from unibiomed_core.files import read_json
from unibiomed_core.modalities import modality
from unibiomed_core.types import StoredOrder

from ..data.body_parts import body_of, foreign_targets
from ..data.records import QuestionRecord, Record, RegionRecord
from . import volumes
from .names import Names
from .request import ConversionRequest, Summary


@dataclass(frozen=True)
class Source:
    """How one data set is read.

    Args:
        labels: Target name -> the label values it is made of.
        findings_known: A picture without a finding label shows none of the source's findings.
        step: Every n-th slice of a volume.
        listed_only: Structures that an item does not list may be there without a contour, so nothing is said of them.
    """

    labels: Mapping[str, tuple[int, ...]]
    findings_known: bool = False
    step: int = 1
    listed_only: bool = False


_ORGANS_CT = {
    "spleen": (1,), "kidney": (2, 3), "right kidney": (2,), "left kidney": (3,), "gallbladder": (4,), "liver": (5,),
    "stomach": (6,), "pancreas": (7,), "lung": (10, 11, 13, 14), "left upper lobe": (10,),
    "left lower lobe": (11,), "right middle lobe": (13,), "right lower lobe": (14,), "small bowel": (18,),
    "duodenum": (19,), "colon": (20,), "vertebra": (30, 31, 32, 33), "L2 vertebra": (30,), "L1 vertebra": (31,),
    "T12 vertebra": (32,), "aorta": (52,), "inferior vena cava": (63,), "spinal cord": (79,), "left iliopsoas": (88,),
    "right iliopsoas": (89,),
}  # fmt: skip
_ORGANS_MR = {
    "spleen": (1,), "kidney": (2, 3), "right kidney": (2,), "left kidney": (3,), "gallbladder": (4,), "liver": (5,),
    "stomach": (6,), "pancreas": (7,), "small bowel": (13,), "duodenum": (14,), "colon": (15,), "vertebra": (19,),
    "spinal cord": (21,), "aorta": (23,), "inferior vena cava": (24,), "left iliopsoas": (48,),
    "right iliopsoas": (49,),
}  # fmt: skip

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "acdc-mri-heart": Source(
            {"right ventricular cavity": (1,), "left ventricular myocardium": (2,), "left ventricular cavity": (3,)},
        ),
        "bccd-blood-cells": Source({"red blood cell": (1,), "white blood cell": (2,), "platelet": (3,)}),
        "bhsd-ct-haemorrhage": Source(
            {
                "intracranial haemorrhage": (1, 2, 3, 4, 5), "epidural haemorrhage": (1,),
                "intraparenchymal haemorrhage": (2,), "intraventricular haemorrhage": (3,),
                "subarachnoid haemorrhage": (4,), "subdural haemorrhage": (5,),
            },
            True,
        ),
        "brats2023-mri-subset": Source(
            {
                "brain tumour": (1, 2, 3), "tumour core": (1, 3), "necrotic tumour core": (1,),
                "peritumoural oedema": (2,), "enhancing tumour": (3,),
            },
            True,
        ),
        "brisc-mri-brain-tumour": Source(
            {"brain tumour": (1, 2, 3), "meningioma": (1,), "pituitary tumour": (3,)}, True
        ),
        "busbra-breast-us": Source({"breast lesion": (1,)}, True),
        "ccaus-carotid-us": Source({"common carotid artery": (1,)}),
        "chd68-ct-heart": Source(
            {
                "left ventricular cavity": (1,), "right ventricular cavity": (2,), "left atrium": (3,),
                "right atrium": (4,), "left ventricular myocardium": (5,), "aorta": (6,), "pulmonary artery": (7,),
            },
        ),
        "cpaisd-ct-stroke": Source(
            {"ischaemic stroke": (1, 2), "ischaemic penumbra": (1,), "ischaemic core": (2,)}, True
        ),
        "curvas-ct-abdomen": Source({"pancreas": (1,), "kidney": (2,), "liver": (3,)}),
        "drishti-fundus-disc": Source({"optic disc": (1, 2), "optic cup": (2,)}),
        "ebhi-colorectal-glands": Source(
            {
                "colorectal adenocarcinoma": (1,), "high-grade intraepithelial neoplasia": (2,),
                "low-grade intraepithelial neoplasia": (3,), "normal colonic gland": (4,),
                "colorectal polyp tissue": (5,), "serrated adenoma": (6,),
            },
            True,
        ),
        "glomeruli-kidney-he": Source({"glomerulus": (1,)}),
        "ham10000-skin": Source({"skin lesion": (1,)}, True),
        "hvsmr2-mri-heart": Source(
            {
                "left ventricular cavity": (1,), "right ventricular cavity": (2,), "left atrium": (3,),
                "right atrium": (4,), "aorta": (5,), "pulmonary artery": (6,), "superior vena cava": (7,),
                "inferior vena cava": (8,),
            },
        ),
        "isic2017-class": Source({}),
        "kidney-mri-t2": Source({"kidney": (1,)}),
        # The tumour grows in the kidney and was drawn over it.
        "kits19-ct-kidney": Source({"kidney": (1, 2), "kidney tumour": (2,)}, True),
        "left-atrium-mri": Source({"left atrium": (1,)}),
        "lizard-nuclei": Source({"cell nucleus": (1,)}),
        "lung-tumour-crops-ct": Source({"lung tumour": (1,)}, True),
        "monusac-nuclei": Source({"cell nucleus": (1,)}),
        "oct-retina-bscan": Source({"retina": (1,)}),
        "openkbp-head-neck-ct": Source(
            {
                "brainstem": (1,), "spinal cord": (2,), "right parotid gland": (3,), "left parotid gland": (4,),
                "mandible": (5,), "larynx": (6,), "oesophagus": (7,),
            },
            step=4,
            listed_only=True,
        ),
        "prostate158-mri": Source({"prostate central gland": (1,), "prostate tumour": (2,)}, True),
        "rings-prostate-glands": Source(
            {"benign prostate gland": (1,), "prostate tumour gland": (2,)}, True
        ),
        "smdg-fundus-disc": Source({"optic disc": (1, 2), "optic cup": (2,)}),
        "spider-mri-lumbar-spine": Source(
            {
                "vertebra": (1, 2, 3, 4, 5, 6, 7, 10), "L5 vertebra": (1,), "L4 vertebra": (2,), "L3 vertebra": (3,),
                "L2 vertebra": (4,), "L1 vertebra": (5,), "T12 vertebra": (6,), "spinal canal": (8,),
                "intervertebral disc": (9,),
            },
        ),
        "uwm-gi-mri": Source({"colon": (1,), "small bowel": (2,), "stomach": (3,)}),
        "av-wide-fundus": Source({"retinal blood vessel": (1,), "optic disc": (2,)}),
        "brats2013-glioma": Source(
            {
                "brain tumour": (1, 2, 3, 4), "tumour core": (1, 3, 4), "necrotic tumour core": (1,),
                "enhancing tumour": (4,), "peritumoural oedema": (2,),
            },
            True,
            3,
        ),
        "busi-breast-us": Source({"breast lesion": (1,)}, True),
        "chaos-ct-liver-slices": Source({"liver": (1,)}),
        "chase-db1": Source({"retinal blood vessel": (1,)}),
        "covid-cxr-structures": Source(
            {
                "right lung": (1,), "left lung": (2,), "lung fields": (1, 2), "cardiomediastinum": (3,),
                "airways": (4,), "ground-glass opacity": (5,), "consolidation": (6,), "pleural effusion": (7,),
                "pneumothorax": (8,),
                "endotracheal tube": (9,), "central venous line": (10,), "monitoring probe": (11,),
                "nasogastric tube": (12,), "tubing": (13,),
            },
            True,
        ),
        "deeplesion-ct-sample": Source({"lesion": (1,)}),
        "drive": Source({"retinal blood vessel": (1,), "optic disc": (2,)}),
        "dsb2018-stained-nuclei": Source({"cell nucleus": (1,)}),
        "isic2017-sample": Source({"skin lesion": (1,)}, True),
        "kvasir-seg": Source({"polyp": (1,)}, True),
        "lung-tumour-ct": Source({"lung tumour": (1,)}, True, 2),
        "montgomery-cxr": Source({"lung fields": (1,)}),
        "ms-lesions": Source({"white-matter lesion": (1,)}, True, 3),
        "msd-hippocampus": Source(
            {"hippocampus": (1, 2), "anterior hippocampus": (1,), "posterior hippocampus": (2,)}, step=4
        ),
        "octa-faz": Source({"foveal avascular zone": (1,)}),
        "ph2": Source({"skin lesion": (1,)}, True),
        "proton-mri-lung-lobes": Source(
            {
                "lung": (1, 2, 3, 4, 5), "left lung": (1, 2), "right lung": (3, 4, 5), "left lower lobe": (1,),
                "left upper lobe": (2,), "right lower lobe": (3,), "right middle lobe": (4,), "right upper lobe": (5,),
            },
            step=3,
        ),
        "shenzhen-cxr": Source({"lung fields": (1,)}),
        "soft-tissue-sarcoma-pet-ct-mr": Source({"soft-tissue sarcoma": (1,)}, True, 4),
        "spinal-cord-mri": Source({"spinal cord": (1,), "spinal cord grey matter": (2,)}, step=3),
        "sunnybrook-cardiac": Source({"left ventricular cavity": (1,)}),
        "tnbc-nuclei-sample": Source({"cell nucleus": (1,)}),
        "totalsegmentator-ct-sample": Source(_ORGANS_CT),
        "totalsegmentator-mr-sample": Source(_ORGANS_MR),
        "usgra-nerve-vessel": Source({"nerve": (1,), "blood vessel": (2,)}),
        "vqa-rad": Source({}),
        "wbc-smear": Source(
            {"white blood cell": (1, 2), "white blood cell nucleus": (1,), "white blood cell cytoplasm": (2,)},
        ),
    }
)  # fmt: skip


def fits(source: Path) -> bool:
    """Whether the folder, or a folder in it, has a ``dataset.json`` with items."""
    return any(_is_about(folder / "dataset.json") for folder in _folders(source))


def convert(job: ConversionRequest, summary: Summary) -> Iterator[Record]:
    """Records of one data set, or of every data set below the folder in the order of names.

    Raises:
        DataError: The folder holds no data set of this layout, or a ``dataset.json`` cannot be used.
    """
    for folder, dataset, about, source in data_sets(job):
        names = Names(folder, summary)
        for item in about["items"]:
            try:
                yield from _convert_item(folder, dataset, about, item, source, job, names)
            except volumes.UNREADABLE as cause:
                summary.refuse(f"{dataset}/{item.get('id', '?')}", cause)


def data_sets(job: ConversionRequest) -> Iterator[tuple[Path, str, dict[str, Any], Source]]:
    """(folder, name, description, how it is read) of one data set, or of every one below a folder by name.

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
        source = SOURCES.get(folder.name) or Source(job.labels or _own_labels(about), job.findings_known, job.step)
        yield folder, job.dataset if folder == job.source else folder.name, about, source


def modality_of(about: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    """The modality of an item; empty where neither the item nor its data set tells it."""
    named = item.get("modality") or ("" if about["modality"].startswith("mixed") else about["modality"])
    return modality(named).name if named else ""


def layers_of(
    about: Mapping[str, Any], item: Mapping[str, Any], source: Source, order: StoredOrder, names: Names, folder: Path
) -> list[NDArray[Any]]:
    """The label maps of an item, each (Z, Y, X) in the canonical order of its image; none for an item without mask.

    Args:
        order: ``Volume.stored`` of the image.

    Raises:
        DataError: A map is missing, does not fit the image, or holds values that nobody named.
        ReadError: A map is damaged.
    """
    files = [names.find(item[key], [folder], "mask") for key in ("mask", "mask_findings") if key in item]
    layers = [volumes.read_labels(file, order, names.summary) for file in files]
    known = {v for values in source.labels.values() for v in values} | {int(v) for v in about.get("labels", {})}
    for file, layer in zip(files, layers, strict=True):
        volumes.check_labels(layer, known, file.name)
    return layers


def labels_of(source: Source, item: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
    """Target -> label values of what is annotated exhaustively on an item."""
    if not source.listed_only:
        return source.labels
    listed = {int(value) for value in item.get("labels", ())}
    return {target: values for target, values in source.labels.items() if listed.issuperset(values)}


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
    about = read_json(path, DataError, f"Data set description of {path.parent.name} cannot be read", expected)
    if not isinstance(about, dict) or (missing := {"items", "modality", "licence"} - about.keys()):
        found = f"lacks {', '.join(sorted(missing))}" if isinstance(about, dict) else "is no object"
        raise DataError("Data set description cannot be read", f"{path.parent.name}/{path.name} {found}", expected)
    return about


def _own_labels(about: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """``{"1": "liver"}`` as a table of targets."""
    kind = "" if about["modality"].startswith("mixed") else modality(about["modality"]).name
    named = {str(name): (int(value),) for value, name in about.get("labels", {}).items()}
    return volumes.named_targets(named, kind)


def _convert_item(
    folder: Path,
    dataset: str,
    about: Mapping[str, Any],
    item: Mapping[str, Any],
    source: Source,
    job: ConversionRequest,
    names: Names,
) -> Iterator[Record]:
    from unibiomed_core.io import read

    if missing := {"id", "split", "image"} - item.keys():
        raise DataError("Incomplete item", f"it lacks {', '.join(sorted(missing))}", "id, split and image")
    named = modality_of(about, item)
    # A picture of unknown modality is 8-bit and read as it is; the record says that its modality is unknown.
    kind = named or "xray"
    volume = read(names.find(item["image"], [folder]), kind)
    if names.summary is not None:
        names.summary.note_reader(volume.notes, str(item["id"]))
    layers = layers_of(about, item, source, volume.stored, names, folder)
    text = item.get("text") or {}
    frame = Record(
        id=f"{dataset}/{item['id']}",
        dataset=dataset,
        split=item["split"],
        group=str(item.get("group", item["id"])),
        modality=named,
        licence=about["licence"],
        image=b"",
        size=(0, 0),
        foreign=foreign_targets(kind, source.labels, body_of(folder.name) or job.body),
        findings_known=source.findings_known or text.get("image_class") == "normal",
        image_class=text.get("image_class", ""),
        questions=tuple(
            QuestionRecord(q["question"], str(q["answer"]), q["answer_type"] == "closed") for q in text.get("qa", ())
        ),
        caption=text.get("caption", ""),
        source=item["image"],
    )
    # Without a mask, nothing is known to be absent.
    masks = volumes.label_masks(layers, labels_of(source, item))
    boxed = tuple(_boxed_regions(item, source.labels, job.side)) if volume.is_2d else ()
    for record in volumes.slice_records(volume, masks, frame, job.side, source.step):
        yield replace(record, regions=(*record.regions, *boxed)) if boxed else record


def _boxed_regions(item: Mapping[str, Any], labels: Mapping[str, tuple[int, ...]], side: int) -> Iterator[RegionRecord]:
    """What is known by its box alone: ``boxes`` of [label, x0, y0, x1, y1] at ``size`` [width, height] of the item."""
    for value, *corners in item.get("boxes", ()):
        target = next((target for target, values in labels.items() if value in values), "")
        width, height = item["size"]
        scale = (side / width, side / height) * 2 if side else (1.0,) * 4
        x0, y0, x1, y1 = (round(corner * factor) for corner, factor in zip(corners, scale, strict=True))
        if target and x1 > x0 and y1 > y0:
            yield RegionRecord(target, box=(x0, y0, x1 - 1, y1 - 1))
