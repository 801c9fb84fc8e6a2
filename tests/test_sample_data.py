"""The shipped samples are whole, licensed, held out where they can be, and readable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from unibiomed_core.errors import ReadError
from unibiomed_core.io import read
from unibiomed_core.modalities import MODALITIES
from unibiomed_core.samples import sample_path, samples, samples_folder


def test_every_modality_has_a_sample() -> None:
    assert {s.modality for s in samples().values()} == set(MODALITIES)


def test_one_patient_has_ct_mri_and_pet() -> None:
    assert {samples()[n].path.name[:7] for n in ("ct", "mri", "pet")} == {"STS_006"}


@pytest.mark.parametrize("name", list(samples()))
def test_sample_is_whole_and_says_where_it_is_from(name: str) -> None:
    row = next(
        r for r in json.loads((samples_folder() / "index.json").read_text("utf-8"))["samples"] if r["name"] == name
    )
    for file, digest in ((row["file"], row["sha256"]), (row["mask"], row["mask_sha256"])):
        assert hashlib.sha256((samples_folder() / file).read_bytes()).hexdigest() == digest
    assert all(row[key] for key in ("licence", "licence_certainty", "citation", "original_source", "origin"))
    assert row["split"] == ("train" if name == "dermoscopy" else "test")


@pytest.mark.parametrize("name", list(samples()))
def test_sample_can_be_read(name: str) -> None:
    sample = samples()[name]
    volume = read(sample.path, sample.modality)
    assert volume.modality == sample.modality
    assert np.ptp(volume.voxels) > 0


def test_samples_are_small() -> None:
    assert sum(f.stat().st_size for f in Path(samples_folder()).rglob("*") if f.is_file()) < 12e6


def test_unknown_sample_names_the_known() -> None:
    with pytest.raises(ReadError, match="endoscopy"):
        sample_path("kidney")


@pytest.mark.parametrize("name", list(samples()))
def test_reference_mask_lies_on_the_image(name: str) -> None:
    sample = samples()[name]
    if sample.path.suffix == ".gz":
        import nibabel

        image, mask = nibabel.load(sample.path), nibabel.load(sample.mask)
        assert np.allclose(image.affine, mask.affine, atol=1e-4)
        size, values = image.shape, np.asarray(mask.dataobj)
    else:
        from PIL import Image

        size, values = Image.open(sample.path).size[::-1], np.asarray(Image.open(sample.mask))
    assert values.shape == size
    assert set(np.unique(values).tolist()) - {0} == set(sample.mask_labels)


def test_pet_is_in_suv_and_ct_in_hounsfield_units() -> None:
    """The stored numbers of the PET are 500 times its SUV; the header's scale must have survived."""
    pet, ct = (read(samples()[name].path, name).voxels for name in ("pet", "ct"))
    assert pet.min() >= 0
    assert 1 < pet.max() < 66
    assert ct.min() < -900
