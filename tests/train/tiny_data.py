"""A tiny tree in the layout with one dataset.json a folder: pictures with discs, drawn, not real."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image


def write_tree(root: Path, pictures: int = 8) -> Path:
    """Two picture sets (one with pictures that show nothing), one volume set and one text-only set."""
    rng = np.random.default_rng(3)
    _pictures(root / "kvasir-seg", "endoscopy", pictures, rng, colour=True, empty_every=0)
    _pictures(root / "busi-breast-us", "ultrasound", pictures, rng, colour=False, empty_every=3)
    _volumes(root / "soft-tissue-sarcoma-pet-ct-mr", 3, rng)
    folder = root / "vqa-rad"
    (folder / "images").mkdir(parents=True)
    items = []
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (48, 40), np.uint8)).save(folder / "images" / f"q{number}.png")
        qa = [{"question": "Is this a brain?", "answer": "Yes", "answer_type": "closed", "question_type": "organ"}]
        items.append(_item(f"q{number}", "test" if number == 2 else "train", f"images/q{number}.png", text={"qa": qa}))
    _about(folder, "mixed (CT, MRI, X-ray)", items)
    return root


def _item(name: str, split: str, image: str, **more: object) -> dict[str, object]:
    return {"id": name, "split": split, "group": name, "image": image, **more}


def _about(folder: Path, modality: str, items: list[dict[str, object]]) -> None:
    about = {"modality": modality, "licence": "none, drawn for tests", "items": items}
    (folder / "dataset.json").write_text(json.dumps(about), "utf-8")


def _pictures(
    folder: Path, modality: str, count: int, rng: np.random.Generator, *, colour: bool, empty_every: int
) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows, columns = np.mgrid[:60, :80]
    items = []
    for number in range(count):
        picture = rng.integers(20, 60, (60, 80, 3) if colour else (60, 80), np.uint8)
        mask = np.zeros((60, 80), np.uint8)
        text: dict[str, object] = {}
        if empty_every and number % empty_every == 0:
            text = {"image_class": "normal"}
        else:
            mask[(rows - rng.integers(20, 40)) ** 2 + (columns - rng.integers(20, 60)) ** 2 < 144] = 1
            picture[mask > 0] = 200
            text = {"image_class": "benign"}
        Image.fromarray(picture).save(folder / "images" / f"p{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"p{number}.png")
        split = "test" if number >= count - 2 else "train"
        items.append(_item(f"p{number}", split, f"images/p{number}.png", mask=f"masks/p{number}.png", text=text))
    _about(folder, modality, items)


def _volumes(folder: Path, count: int, rng: np.random.Generator) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    items = []
    for number in range(count):
        voxels = rng.integers(-900, -800, (40, 44, 9)).astype(np.int16)
        voxels[8:32, 8:36] = rng.integers(20, 60, (24, 28, 9))
        mask = np.zeros(voxels.shape, np.uint8)
        mask[14:22, 14:24, 3:6] = 1
        voxels[mask > 0] = 120
        for name, data in (("images", voxels), ("masks", mask)):
            nibabel.save(
                nibabel.Nifti1Image(data, np.diag([2.0, 2.0, 3.0, 1.0])), folder / name / f"v{number}_CT.nii.gz"
            )
        split = "test" if number == count - 1 else "train"
        items.append(
            _item(
                f"v{number}_CT", split, f"images/v{number}_CT.nii.gz", mask=f"masks/v{number}_CT.nii.gz", modality="CT"
            )
        )
    _about(folder, "mixed", items)
