"""The part of a picture that the canvas shows: its pixels at full resolution, and its place in the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari.layers")
from napari.components import ViewerModel
from napari.layers import Image

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.placement import image_layer, volumes_in
from napari_unibiomed.canvas.shown_region import shown_region
from napari_unibiomed.canvas.volumes import volume_of
from tests.napari_unibiomed.dock_kit import Open, open_dock
from tests.napari_unibiomed.fake_engine import FakeEngine, picture
from unibiomed_core.errors import ReadError
from unibiomed_core.io import read
from unibiomed_core.types import Volume

__all__ = ["open_dock"]

pytestmark = pytest.mark.filterwarnings("ignore")

GREY = (np.add.outer(np.arange(203), 3 * np.arange(300)) % 251).astype(np.uint8)


class Lazy:
    """An array that cannot be taken whole."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.size = values.size

    def __getitem__(self, where: Any) -> np.ndarray:
        return self.values[where]

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise AssertionError("it was taken whole")


def look(viewer: ViewerModel, rows: tuple[float, float], columns: tuple[float, float]) -> None:
    """Show just this part of the world."""
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    viewer.canvas.size = (round(4 * height), round(4 * width))
    viewer.scene.camera.zoom = 4.0
    viewer.scene.camera.center = (0, sum(rows) / 2, sum(columns) / 2)


def world(layer: Image, position: tuple[float, float]) -> np.ndarray:
    return np.asarray(layer.data_to_world(position))


@pytest.mark.parametrize("transform", [{}, {"scale": (2, 3), "translate": (10, -20)}, {"scale": (-1, 2)}], ids=str)
@pytest.mark.parametrize("colour", [False, True])
def test_it_has_the_pixels_that_are_shown_and_lies_on_them(transform: dict[str, Any], colour: bool) -> None:
    viewer = ViewerModel()
    values = np.stack([GREY, GREY.T.reshape(GREY.shape), 255 - GREY], axis=2) if colour else GREY
    layer = viewer.add_image(values, rgb=colour, name="slide", **transform)
    corners = np.sort([world(layer, (39.5, 79.5)), world(layer, (99.5, 199.5))], axis=0)
    look(viewer, tuple(corners[:, 0]), tuple(corners[:, 1]))
    made = LayerGateway(viewer).add_region(layer, shown_region(viewer, layer, "pathology"))
    assert np.array_equal(made.data, values[40:100, 80:200])
    assert made.name == "slide (80, 40)"
    assert world(made, (0, 0)) == pytest.approx(world(layer, (40, 80)))
    assert world(made, (59, 119)) == pytest.approx(world(layer, (99, 199)))
    volume = volume_of(made, "pathology")
    assert volume is volumes_in(made)[0]
    assert any("120 x 60 pixels from column 80, row 40 on" in note.text for note in volume.notes)


def test_only_what_lies_on_the_canvas_is_taken() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(GREY)
    look(viewer, (-50, 30.5), (250.2, 500))
    assert shown_region(viewer, layer, "xray").volume.shape == (1, 31, 50)  # pixels that are shown in part count
    for rows, columns in (((-500, -100), (0, 100)), ((0, 10.4), (0, 100))):
        look(viewer, rows, columns)
        with pytest.raises(ReadError, match="Nothing to take"):
            shown_region(viewer, layer, "xray")


@pytest.mark.parametrize("pyramid", [False, True])
def test_a_lazy_picture_is_not_taken_whole(pyramid: bool) -> None:
    viewer = ViewerModel()
    data = [Lazy(GREY), GREY[::2, ::2]] if pyramid else Lazy(GREY)  # napari takes the coarsest level itself
    layer = Image(data, multiscale=pyramid, contrast_limits=(0, 255))
    viewer.layers.append(layer)
    look(viewer, (9.5, 59.5), (19.5, 99.5))
    region = shown_region(viewer, layer, "pathology")
    assert np.array_equal(region.volume.voxels[0], GREY[10:60, 20:100])


@pytest.fixture
def low_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """A picture that is read at a quarter of its sides, as whole slides are."""
    from PIL import Image as Pillow

    from unibiomed_core.io import large_picture

    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr(large_picture, "MOST_PIXELS", 5_000)
    tifffile.imwrite(tmp_path / "slide.tif", GREY, photometric="minisblack", tile=(32, 48), compression="zlib")
    return read(tmp_path / "slide.tif", "pathology")


def test_of_a_picture_at_low_power_the_file_is_read_again(low_power: Volume) -> None:
    assert low_power.voxels.shape == (1, 51, 75)
    viewer = ViewerModel()
    data, about, _ = image_layer(low_power)
    layer = viewer.add_image(data, **about, scale=(2, 2), translate=(5, 7))
    corners = np.array([world(layer, (9.5, 19.5)), world(layer, (19.5, 39.5))])
    look(viewer, tuple(corners[:, 0]), tuple(corners[:, 1]))
    made = LayerGateway(viewer).add_region(layer, shown_region(viewer, layer, "pathology"))
    step = 203 / 51
    first, last = int(10 * step), int(np.ceil(20 * step))
    assert np.array_equal(made.data, GREY[first:last, 80:160])
    edges = world(made, (-0.5, -0.5)), world(made, (made.data.shape[0] - 0.5, made.data.shape[1] - 0.5))
    # The file's pixels do not end where those of the reduced picture do.
    assert edges[0] == pytest.approx(corners[0], abs=2 * 1 / step)
    assert edges[1] == pytest.approx(corners[1], abs=2 * 1 / step)
    assert world(made, (0, 0)) == pytest.approx(world(layer, ((first + 0.5) / step - 0.5, 80.5 / 4 - 0.5)))


def test_a_region_that_is_too_large_is_refused_in_words(low_power: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_unibiomed.canvas import shown_region as module

    monkeypatch.setattr(module, "MOST_PIXELS", 5_000)
    viewer = ViewerModel()
    data, about, _ = image_layer(low_power)
    layer = viewer.add_image(data, **about)
    look(viewer, (-0.5, 50.5), (-0.5, 74.5))
    with pytest.raises(ReadError, match="300 x 203 pixels"):
        shown_region(viewer, layer, "pathology")


def test_volumes_and_other_views_are_refused() -> None:
    viewer = ViewerModel()
    flat = viewer.add_image(GREY)
    solid = viewer.add_image(np.stack([GREY] * 4))
    viewer.dims.order = (1, 0, 2)
    for layer in (flat, solid):
        with pytest.raises(ReadError, match="not shown flat"):
            shown_region(viewer, layer, "ct")


@pytest.mark.window
def test_the_model_gets_it_and_what_is_found_lies_in_its_place(open_dock: Open) -> None:
    kit = open_dock(FakeEngine({"nucleus": {0: (3, 4, 12, 15)}}), image=picture((200, 300), "slide"))
    (source,) = kit.viewer.layers
    kit.dock.image.follow.setChecked(False)
    look(kit.viewer, (99.5, 149.5), (39.5, 119.5))
    kit.dock.image.region_button.click()
    made = kit.dock.image.layer
    assert made is not source
    assert kit.session.volume.shape == (1, 50, 80)
    kit.dock.choose_task("segment")
    kit.dock.task.prompt.setEditText("nucleus")
    assert kit.dock.run_task()
    kit.until_idle()
    (labels,) = kit.dock.gateway.ours("findings")
    rows, columns = np.nonzero(labels.data)
    assert labels.data_to_world((rows.min(), columns.min())) == pytest.approx((103, 44))
    kit.viewer.scene.camera.center = (0, 5000, 5000)
    kit.dock.image.region_button.click()
    assert kit.dock.run.shown[0].title == "Nothing to take"
