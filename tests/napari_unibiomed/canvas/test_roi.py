"""Rectangles to regions, without Qt. That a drawn shape gets here from the canvas is tested with the dock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_unibiomed.canvas import boxes, volumes
from unibiomed_core.errors import PromptError
from unibiomed_core.types import Region, StoredOrder, Volume

SHAPE = (20, 40, 60)


def volume(shape: tuple[int, ...] = SHAPE, rgb: bool = False) -> Volume:
    picture = len(shape) == 2
    voxels: NDArray[Any] = np.zeros((*((1, *shape) if picture else shape), *((3,) if rgb else ())), np.uint8)
    stored = StoredOrder((0, 1, 2), (False,) * 3, shape, np.eye(4))
    return Volume(voxels, np.diag([-1.0, -1, -1, 1]), "ct", "HU", "px" if picture else "mm", True, stored)


def rectangle(start: tuple[float, float], end: tuple[float, float], hidden: int, at: float) -> NDArray[Any]:
    """Corners as napari makes them, from where the drag began to where it ended."""
    (r0, c0), (r1, c1) = start, end
    return np.insert(np.array([[r0, c0], [r0, c1], [r1, c1], [r1, c0]], float), hidden, at, axis=1)


@pytest.mark.parametrize(
    ("start", "end"),
    [((5, 10), (24, 39)), ((24, 39), (5, 10)), ((5, 39), (24, 10)), ((24, 10), (5, 39))],
    ids=["down right", "up left", "down left", "up right"],
)
def test_the_box_does_not_depend_on_the_direction_of_the_drag(
    start: tuple[float, float], end: tuple[float, float]
) -> None:
    found = boxes.box_of(rectangle(start, end, 0, 7), volume())
    assert found == boxes.Box(Region(10, 5, 39, 24, "axial", 7))


@pytest.mark.parametrize(("plane", "hidden"), [("axial", 0), ("coronal", 1), ("sagittal", 2)])
def test_the_plane_is_the_one_all_corners_lie_on(plane: str, hidden: int) -> None:
    region = boxes.box_of(rectangle((2, 3), (13, 17), hidden, 9.2), volume()).region
    assert (region.plane, region.index) == (plane, 9)
    assert region.box == (3, 2, 17, 13)
    piece = volume().slice(region.index, region.plane)  # the rows and columns that the model is given
    assert region.y1 < piece.shape[0]
    assert region.x1 < piece.shape[1]


def test_pixels_count_when_the_shape_meets_them() -> None:
    exact = boxes.box_of(rectangle((4.5, 9.5), (14.5, 29.5), 0, 0), volume()).region
    assert exact.box == (10, 5, 29, 14)
    partly = boxes.box_of(rectangle((4.4, 9.4), (14.6, 29.6), 0, 0), volume()).region
    assert partly.box == (9, 4, 30, 15)


@pytest.mark.parametrize("rgb", [False, True])
def test_pictures_have_one_slice(rgb: bool) -> None:
    found = boxes.box_of(rectangle((3, 4), (20, 30), 0, 0), volume((40, 60), rgb))
    assert found.region == Region(4, 3, 30, 20, "axial", 0)


def test_a_box_over_the_edge_is_clipped_and_says_so() -> None:
    found = boxes.box_of(rectangle((-9, 50), (12, 90), 0, 3), volume())
    assert found.region.box == (50, 0, 59, 12)
    assert found.notes == (boxes.CLIPPED,)
    with pytest.raises(PromptError, match="Box outside the image"):
        boxes.box_of(rectangle((-20, 5), (-3, 30), 0, 3), volume())


@pytest.mark.parametrize("end", [(6, 12), (24, 16), (11, 39)])
def test_a_box_under_eight_pixels_is_refused_with_its_size(end: tuple[int, int]) -> None:
    with pytest.raises(PromptError, match=r"Box too small.*the current box is") as caught:
        boxes.box_of(rectangle((5, 10), end, 0, 3), volume())
    assert f"{end[1] - 9} × {end[0] - 4}" in str(caught.value)
    assert caught.value.code == "box_too_small"
    assert caught.value.values == {"width_px": end[1] - 9, "height_px": end[0] - 4}
    assert "8 × 8" in str(caught.value)


def test_clipping_can_make_a_box_too_small() -> None:
    with pytest.raises(PromptError, match="Box too small"):
        boxes.box_of(rectangle((36, 5), (60, 30), 0, 3), volume())


def test_a_turned_rectangle_gives_its_bounding_box_and_says_so() -> None:
    centre, angle = np.array([20.0, 30.0]), np.deg2rad(45)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = (rectangle((-8, -8), (8, 8), 0, 0)[:, 1:] @ turn.T) + centre
    found = boxes.box_of(np.insert(corners, 0, 4, axis=1), volume())
    half = 8 * np.sqrt(2)
    assert found.region.box == tuple(
        int(v) for v in (np.floor(30.5 - half), np.floor(20.5 - half), np.ceil(29.5 + half), np.ceil(19.5 + half))
    )
    assert found.notes == (boxes.ROTATED,)


def test_a_shape_across_slices_is_refused() -> None:
    corners = np.array([[2, 5, 10], [2, 5, 30], [9, 25, 30], [9, 25, 10]], float)
    with pytest.raises(PromptError, match="Box across slices"):
        boxes.box_of(corners, volume())


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_an_outline_leads_back_to_its_region(plane: str) -> None:
    region = Region(3, 4, 14, 15, plane, 6)  # type: ignore[arg-type]
    assert boxes.box_of(boxes.outline_of(region), volume()).region == region


@pytest.mark.parametrize(
    ("answer", "phrase"),
    [("liver in abdomen CT", "liver"), ("Left kidney.", "left kidney"), ("", ""), ("polyp\nmore words", "polyp")],
)
def test_a_class_answer_becomes_a_phrase(answer: str, phrase: str) -> None:
    assert boxes.phrase_of(answer) == phrase


def shapes_on(layer: Any, corners: NDArray[Any], **about: Any) -> Any:
    from napari.layers import Shapes

    return Shapes([corners], shape_type="rectangle", ndim=layer.ndim, **about)


def test_shapes_are_taken_to_the_image_through_the_world() -> None:
    layers = pytest.importorskip("napari.layers")
    voxels = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    image = layers.Image(voxels, scale=(3, 0.5, 0.5), translate=(10, 20, 30))
    taken = volumes.volume_of(image, "mri")
    corners = rectangle((5, 10), (24, 39), 0, 7)
    alike = shapes_on(image, corners, scale=image.scale, translate=image.translate)
    in_pixels = shapes_on(image, np.array([image.data_to_world(c) for c in corners]))
    for shapes in (alike, in_pixels):
        (found,) = boxes.drawn_corners(shapes, image, taken)
        assert boxes.box_of(found, taken).region == Region(10, 5, 39, 24, "axial", 7)


def test_a_flipped_layer_and_one_step_of_a_4d_layer_give_the_pixels_under_the_box() -> None:
    layers = pytest.importorskip("napari.layers")
    voxels = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16)
    for image, choice, lead in (
        (layers.Image(voxels, scale=(3, -1, 1)), None, 0),
        (layers.Image(np.stack([voxels + 1, voxels]), scale=(1, 3, -1, 1)), {0: 1}, 1),
    ):
        taken = volumes.volume_of(image, "mri", choice=choice)
        corners = (
            np.insert(rectangle((5, 10), (24, 39), 0, 7), 0, [1.0] * lead, axis=1)
            if lead
            else rectangle((5, 10), (24, 39), 0, 7)
        )
        (found,) = boxes.drawn_corners(shapes_on(image, corners, scale=image.scale), image, taken)
        region = boxes.box_of(found, taken).region
        x0, y0, x1, y1 = region.box
        under = taken.slice(region.index, region.plane).pixels[y0 : y1 + 1, x0 : x1 + 1]
        drawn = voxels[7, 5:25, 10:40]
        assert np.array_equal(under, drawn[::-1])  # the data run against the axis that they are shown along


def test_prompts_of_a_box_carry_it() -> None:
    region = Region(1, 2, 30, 40, "axial", 5)
    prompts = boxes.box_prompts(region)
    assert [p.task for p in prompts] == ["roi_class", "roi_describe"]
    assert {p.region for p in prompts} == {region}
