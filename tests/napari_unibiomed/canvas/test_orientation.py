"""Letters on the canvas edges, on a viewer without a window. All orders of axes in files are tested with the writer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.hand_volumes import canonical_affine, picture_of, volume_of

try:
    from napari.components import ViewerModel
except ImportError as error:
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.orientation import OrientationLetters
from unibiomed_core.types import Volume

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes


def ct() -> Volume:
    values = np.random.default_rng(0).integers(-1000, 1000, (5, 20, 24), dtype=np.int16)
    return volume_of(values, canonical_affine((4, 1, 1)))


def scene(volume: Volume) -> tuple[ViewerModel, OrientationLetters, LayerGateway]:
    viewer = ViewerModel()
    gateway = LayerGateway(viewer)
    letters = OrientationLetters(gateway)
    gateway.add_image(volume)
    return viewer, letters, gateway


def shown(viewer: ViewerModel) -> str:
    """Letters at the top, bottom, left and right, "-" for none."""
    overlays = [viewer.canvas.overlays[f"unibiomed_{edge}"] for edge in ("top", "bottom", "left", "right")]
    return "".join(overlay.text if overlay.visible else "-" for overlay in overlays)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((0, 1, 2), "APRL"),
        ((1, 0, 2), "SIRL"),
        ((2, 0, 1), "SIAP"),
        ((2, 1, 0), "APSI"),
        ((0, 2, 1), "RLAP"),
    ],
)
def test_letters_follow_the_order_of_axes(order: tuple[int, ...], expected: str) -> None:
    viewer, _, _ = scene(ct())
    viewer.dims.order = order
    assert shown(viewer) == expected


def test_letters_follow_flips_of_the_camera_and_of_the_layer() -> None:
    viewer, _, _ = scene(ct())
    viewer.scene.camera.orientation2d = ("up", "left")
    assert shown(viewer) == "PALR"
    viewer.scene.camera.orientation2d = ("down", "right")
    viewer.layers[0].scale = (4, 1, -1)
    assert shown(viewer) == "APLR"


@pytest.mark.parametrize(
    "volume", [replace(ct(), orientation_known=False), picture_of(np.eye(30, dtype=np.uint8) * 200)], ids=["?", "2D"]
)
def test_letters_are_off_where_nothing_tells_the_sides(volume: Volume) -> None:
    viewer, _, _ = scene(volume)
    assert shown(viewer) == "----"


def test_letters_are_off_in_3d_and_for_hidden_and_foreign_layers() -> None:
    viewer, _, gateway = scene(ct())
    viewer.dims.ndisplay = 3
    assert shown(viewer) == "----"
    viewer.dims.ndisplay = 2
    viewer.layers[0].visible = False
    assert shown(viewer) == "----"
    viewer.layers[0].visible = True
    assert shown(viewer) == "APRL"
    viewer.layers.clear()
    viewer.add_image(np.zeros((5, 20, 24)))
    assert shown(viewer) == "----"
    gateway.add_image(ct())
    assert shown(viewer) == "APRL"


def test_letters_go_when_closed() -> None:
    viewer, letters, gateway = scene(ct())
    names = set(viewer.canvas.overlays)
    letters.close()
    letters.close()
    assert names - set(viewer.canvas.overlays) == {f"unibiomed_{edge}" for edge in ("top", "bottom", "left", "right")}
    gateway.add_image(ct())  # nothing listens
    second = OrientationLetters(gateway)
    assert shown(viewer) == "APRL"
    second.close()
