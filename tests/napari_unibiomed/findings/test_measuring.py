"""Labels that no run made are measured on the image under them, and stay as they are."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from tests.hand_volumes import canonical_affine, picture_of, volume_of

try:
    from napari.components import ViewerModel
except ImportError as error:
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.findings.measuring import measure_layer
from unibiomed_core.errors import DataError, ReadError

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes


def scene() -> tuple[LayerGateway, Any]:
    """(gateway, image layer) of a CT of 3 x 2 x 1 mm voxels with the value 100 on the patient's left."""
    values = np.random.default_rng(0).integers(-1000, 1000, (6, 30, 40), dtype=np.int16)
    values[:, :, 25:] = 100
    gateway = LayerGateway(ViewerModel())
    return gateway, gateway.add_image(volume_of(values, canonical_affine((3, 2, 1))))


def drawn(gateway: LayerGateway, source: Any, **about: Any) -> Any:
    data = np.zeros(source.data.shape, np.int32)
    data[1:3, 4:9, 30:36] = 7
    data[4, 2:4, 2:4] = 90_000
    return gateway.viewer.add_labels(data, scale=source.scale, **about)


def test_every_number_gets_its_measurements() -> None:
    gateway, source = scene()
    labels = drawn(gateway, source, name="mine", features={"index": [0, 7], "finding": ["", "nodule"]})
    before = hashlib.sha256(labels.data.tobytes()).hexdigest()
    made = measure_layer(gateway, labels)
    table = made.features.set_index("index")
    assert list(table.index) == [0, 7, 90_000]
    assert table.loc[7, "finding"] == "nodule"
    assert table.loc[90_000, "finding"] == "label 90000"
    assert table.loc[7, "voxels"] == 2 * 5 * 6
    assert table.loc[7, "volume_ml"] == pytest.approx(60 * 6 / 1000)
    assert table.loc[7, "intensity_mean"] == pytest.approx(100)
    assert table.loc[7, "intensity_unit"] == "HU"
    assert table.loc[7, "side"] == "left"
    assert (table.loc[7, "slice_first"], table.loc[7, "slice_last"]) == (1, 2)
    assert table.loc[90_000, "flags"] == "one_slice"
    assert made.name == "mine measured"
    assert np.array_equal(made.data, labels.data)
    assert np.array_equal(made.scale, labels.scale)
    assert made.data is not labels.data
    assert hashlib.sha256(labels.data.tobytes()).hexdigest() == before
    assert list(labels.features["finding"]) == ["", "nodule"]
    assert gateway.remove_ours(made)
    assert not gateway.remove_ours(labels)


def test_labels_on_a_picture_are_measured_in_pixels() -> None:
    gateway = LayerGateway(ViewerModel())
    source = gateway.add_image(picture_of(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)))
    data = np.zeros((30, 40), np.uint8)
    data[3:9, 4:9] = 1
    made = measure_layer(gateway, gateway.viewer.add_labels(data))
    assert made.features.loc[1, "voxels"] == 30
    assert source in gateway.images()


def test_the_image_under_the_labels_is_the_topmost_one_of_their_place() -> None:
    gateway, source = scene()
    labels = drawn(gateway, source)
    gateway.viewer.add_image(np.zeros((3, 3, 3)))
    gateway.viewer.add_image(source.data * 0 + 5, translate=(9, 9, 9))
    assert measure_layer(gateway, labels).features.loc[1, "intensity_mean"] == pytest.approx(100)


def test_what_cannot_be_measured_is_said() -> None:
    gateway, source = scene()
    with pytest.raises(DataError, match="No image under the labels"):
        measure_layer(gateway, gateway.viewer.add_labels(np.ones((3, 3, 3), np.uint8)))
    empty = gateway.viewer.add_labels(np.zeros(source.data.shape, np.uint8), scale=source.scale)
    with pytest.raises(DataError, match="Nothing to measure"):
        measure_layer(gateway, empty)
    empty.data = np.arange(empty.data.size).reshape(empty.data.shape)
    with pytest.raises(DataError, match="Nothing to measure"):
        measure_layer(gateway, empty)
    series = gateway.viewer.add_image(np.random.default_rng(0).integers(0, 9, (2, 3, 30, 30)), rgb=False)
    with pytest.raises(ReadError, match="Choose one volume"):
        measure_layer(gateway, gateway.viewer.add_labels(np.ones(series.data.shape, np.uint8)))
