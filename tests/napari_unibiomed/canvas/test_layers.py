"""The gateway to a viewer's layers, on a viewer without a window."""

from __future__ import annotations

import gc
import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.hand_volumes import cropped, picture_of, volume_of

try:
    from napari.components import ViewerModel
except ImportError as error:
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)

from napari_unibiomed.canvas import layers, volumes
from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.placement import KEY
from napari_unibiomed.jobs import Job
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.report.build import OKABE_ITO, colour
from unibiomed_core.types import CroppedMask, Phrase, Plane, Prediction, Prompt, Volume

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes


def ct(shape: tuple[int, int, int] = (40, 36, 12)) -> Volume:
    values = np.random.default_rng(1).integers(-1000, 1000, shape, dtype=np.int16)
    return volume_of(values, np.diag([1.0, 1.5, 4.0, 1.0]))


def running(volume: Volume, plane: Plane = "axial") -> Any:
    """A run in work."""
    job = Job("report", volume, RunRequest(plane=plane))
    return SimpleNamespace(job=job, report=None, predictions={}, renamed=False)


def answer(plane: Plane, index: int, **found: np.ndarray) -> tuple[Prediction, ...]:
    """Predictions of one slice: a mask for each name."""
    return tuple(
        Prediction(Prompt("segment", name), plane, index, name, name, (Phrase(name, 0, 1, 0.9, cropped(mask), name),))
        for name, mask in found.items()
    )


def block(shape: tuple[int, ...], *box: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*ends) for ends in box)] = True
    return mask


def scene(volume: Volume | None = None) -> tuple[Any, LayerGateway, Volume, Any]:
    """(viewer, gateway, volume, its image layer)."""
    viewer = ViewerModel()
    gateway = LayerGateway(viewer)
    volume = volume or ct()
    return viewer, gateway, volume, gateway.add_image(volume)


def test_a_volume_starts_at_its_middle_slice() -> None:
    _, gateway, volume, _ = scene()
    assert gateway.displayed_plane(volume) == "axial"
    assert gateway.current_index(volume, "axial") in (5, 6)


def test_images_skip_labels_and_come_top_first() -> None:
    viewer, gateway, volume, first = scene()
    gateway.add_labels(running(volume), first)
    second = viewer.add_image(np.eye(20))
    assert list(gateway.images()) == [second, first]


def test_labels_lie_on_their_source() -> None:
    _, gateway, volume, source = scene()
    source.translate = (5, 6, 7)
    layer = gateway.add_labels(running(volume), source)
    assert layer.data.shape == volume.shape
    for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels"):
        assert np.array_equal(getattr(layer, name), getattr(source, name)), name
    assert layer.opacity == pytest.approx(0.45)
    assert list(layer.features["index"]) == [0]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_are_painted_as_they_come_with_smaller_things_on_top(plane: Plane) -> None:
    _, gateway, volume, source = scene()
    run = running(volume, plane)
    gateway.jump(volume, plane, 3)
    layer = gateway.add_labels(run, source)
    size = volume.slice(4, plane).shape
    run.predictions[4] = answer(plane, 4, lesion=block(size, (3, 5), (3, 6)), liver=block(size, (2, 9), (2, 10)))
    assert not gateway.update_labels(layer, run, shown_slice=3)
    picture = np.moveaxis(layer.data, volume.plane_axis(plane), 0)
    assert picture[4, 3, 4] == 1
    assert picture[4, 8, 8] == 2
    assert np.flatnonzero(picture.any(axis=(1, 2))).tolist() == [4]
    assert list(layer.features["finding"]) == ["", "lesion", "liver"]
    run.predictions[5] = answer(plane, 5, liver=block(size, (2, 9), (2, 10)))
    assert gateway.update_labels(layer, run, shown_slice=5)
    assert picture[5, 8, 8] == 2
    assert not gateway.update_labels(layer, run, shown_slice=5)


@pytest.mark.parametrize("display", [{"order": (1, 0, 2)}, {"ndisplay": 3}])
def test_another_view_is_refreshed_by_every_slice(display: dict[str, Any]) -> None:
    viewer, gateway, volume, source = scene()
    run = running(volume)
    layer = gateway.add_labels(run, source)
    for name, value in display.items():
        setattr(viewer.dims, name, value)
    run.predictions[4] = answer("axial", 4, liver=block(volume.slice(0).shape, (2, 9), (2, 9)))
    assert gateway.update_labels(layer, run, shown_slice=9)
    assert not gateway.update_labels(layer, run, shown_slice=9)


def test_further_answers_on_a_slice_are_painted_too() -> None:
    _, gateway, volume, source = scene()
    run = running(volume)
    size = volume.slice(0).shape
    run.predictions[4] = answer("axial", 4, liver=block(size, (2, 9), (2, 9)))
    layer = gateway.add_labels(run, source)
    run.predictions[4] += answer("axial", 4, spleen=block(size, (12, 14), (2, 9)))
    gateway.update_labels(layer, run)
    assert set(np.unique(layer.data[4])) == {0, 1, 2}


def test_a_report_repaints_by_number_and_fills_the_features() -> None:
    _, gateway, volume, source = scene()
    run = running(volume)
    run.predictions[4] = answer("axial", 4, liver=block(volume.slice(0).shape, (2, 9), (2, 9)))
    layer = gateway.add_labels(run, source)
    size = SimpleNamespace(volume_ml=1.5, side="left")
    masks = [block(volume.shape, (1, 9), (1, 9), (1, 9)), block(volume.shape, (3, 5), (3, 5), (3, 5))]
    findings = [
        SimpleNamespace(
            number=n, phrase=name, presence=0.9, mask=cropped(mask), flags=("low_score",), measurements=size
        )
        for n, name, mask in ((1, "liver", masks[0]), (2, "lesion", masks[1]))
    ]
    run.report = SimpleNamespace(findings=findings)
    assert gateway.update_labels(layer, run, shown_slice=11)
    assert np.array_equal(layer.data == 2, masks[1])
    assert np.array_equal(layer.data > 0, masks[0])
    assert list(layer.features["index"]) == [0, 1, 2]
    assert list(layer.features["side"])[1:] == ["left", "left"]
    assert gateway.mask_of(layer, 2).count == masks[1].sum()


def test_numbers_beyond_the_array_and_other_grids_are_refused() -> None:
    _, gateway, volume, source = scene()
    layer = gateway.add_labels(running(volume), source)
    mask = CroppedMask.from_full(block(volume.shape, (1, 2), (1, 2), (1, 2)))
    gateway.paint_masks(layer, {300: mask})
    assert layer.data.max() == 300  # more than 8 bits hold
    with pytest.raises(layers.painting.WriteError, match="Too many findings"):
        gateway.paint_masks(layer, {70000: mask})
    with pytest.raises(ValueError, match="on a volume of shape"):
        gateway.paint_masks(layer, {1: CroppedMask.from_full(np.ones((2, 2, 2), bool))})


def test_colours_follow_the_numbers_and_what_the_user_chose() -> None:
    _, gateway, volume, source = scene()
    layer = gateway.add_labels(running(volume), source)
    rows = [{"index": n, "finding": str(n)} for n in range(1, 10)]
    gateway.set_features(layer, rows)
    assert list(gateway.colours_of(layer).values()) == [*OKABE_ITO, *OKABE_ITO[:2]]
    heard: list[bool] = []
    disconnect = gateway.on_recoloured(layer, lambda: heard.append(True))
    layer.colormap = layers.painting.colormap([(1, "#123456"), *((n, colour(n)) for n in range(2, 10))])
    assert heard
    disconnect()
    gateway.set_features(layer, rows[:3])
    assert gateway.colours_of(layer) == {1: "#123456", 2: OKABE_ITO[1], 3: OKABE_ITO[2]}


def test_hidden_findings_keep_their_voxels_and_colours() -> None:
    _, gateway, volume, source = scene()
    layer = gateway.add_labels(running(volume), source)
    gateway.paint_masks(layer, {n: cropped(block(volume.shape, (n, n + 1), (2, 5), (2, 5))) for n in (1, 2)})
    gateway.set_features(layer, [{"index": 1, "finding": "a"}, {"index": 2, "finding": "b"}])
    before = gateway.colours_of(layer)
    gateway.hide(layer, {2})
    assert [layer.colormap.map(n)[3] for n in (1, 2)] == [1, 0]
    assert gateway.colours_of(layer) == before
    assert (layer.data == 2).any()
    gateway.hide(layer, ())
    assert layer.colormap.map(2)[3] == 1


def test_the_selected_finding_is_outlined_and_the_selection_stays() -> None:
    viewer, gateway, volume, source = scene()
    layer = gateway.add_labels(running(volume), source)
    mask = block(volume.shape, (3, 6), (10, 20), (30, 40))
    gateway.paint_masks(layer, {1: cropped(mask)})
    viewer.layers.selection.active = layer
    gateway.select_label(layer, 1)
    assert layer.selected_label == 1
    assert viewer.layers.selection.active is layer
    (outline,) = gateway.ours("outline")
    assert outline.contour == 2
    where = np.argwhere(outline.data)
    world = [tuple(outline.data_to_world(p)) for p in (where[0], where[-1])]
    assert np.allclose(world, [layer.data_to_world(p) for p in (np.argwhere(mask)[0], np.argwhere(mask)[-1])])
    gateway.select_label(layer, 1)
    assert len(list(gateway.ours("outline"))) == 1
    gateway.select_label(layer, 0)
    assert not list(gateway.ours("outline"))


def test_the_outline_goes_with_its_findings_and_leaves_no_callback() -> None:
    viewer, gateway, volume, source = scene()
    before = len(viewer.layers.events.removed.callbacks)
    for way in ("by us", "by the user", "the outline alone"):
        layer = gateway.add_labels(running(volume), source)
        gateway.paint_masks(layer, {1: cropped(block(volume.shape, (3, 6), (3, 6), (3, 6)))})
        gateway.select_label(layer, 1)
        if way == "by us":
            assert gateway.remove_ours(layer)
        elif way == "by the user":
            viewer.layers.remove(layer)
        else:
            viewer.layers.remove(next(gateway.ours("outline")))
            viewer.layers.remove(layer)
        assert list(viewer.layers) == [source]
        assert len(viewer.layers.events.removed.callbacks) == before


def test_only_layers_that_we_made_are_removed() -> None:
    viewer, gateway, volume, source = scene()
    layer = gateway.add_labels(running(volume), source)
    twin = viewer.add_labels(layer.data.copy(), metadata=dict(layer.metadata))
    drawn = viewer.add_shapes([np.zeros((4, 2))], name=layers.ROI)
    for theirs in (source, twin, drawn):
        assert not gateway.remove_ours(theirs)
    assert gateway.remove_ours(layer)
    assert not gateway.remove_ours(layer)
    assert list(viewer.layers) == [source, twin, drawn]


def test_the_users_layers_are_never_changed() -> None:
    viewer, gateway, volume, source = scene()
    theirs = viewer.add_labels(np.zeros(volume.shape, np.uint8))
    state = {layer: hashlib.sha256(np.ascontiguousarray(layer.data)).hexdigest() for layer in (source, theirs)}
    layer = gateway.add_labels(running(volume), source)
    gateway.paint_masks(layer, {1: cropped(block(volume.shape, (0, 9), (0, 9), (0, 9)))})
    gateway.select_label(layer, 1)
    gateway.roi_layer(source)
    gateway.jump(volume, "sagittal", 3, (1, 2, 3))
    gateway.remove_ours(layer)
    for held, digest in state.items():
        assert hashlib.sha256(np.ascontiguousarray(held.data)).hexdigest() == digest


def test_a_box_layer_is_made_once_for_each_image() -> None:
    viewer, gateway, _, source = scene()
    layer = gateway.roi_layer(source)
    assert layer.name == layers.ROI
    assert layer.mode == "add_rectangle"
    assert viewer.layers.selection.active is layer
    assert layer.ndim == 3
    assert np.array_equal(layer.scale, source.scale)
    assert layer.units == source.units
    viewer.layers.selection.active = source
    assert gateway.roi_layer(source) is layer
    assert viewer.layers.selection.active is layer
    picture = viewer.add_image(np.eye(30))
    assert gateway.roi_layer(picture) is not layer


@pytest.mark.parametrize(("plane", "order"), [("axial", (0, 1, 2)), ("coronal", (1, 0, 2)), ("sagittal", (2, 0, 1))])
def test_jump_shows_the_slice_and_keeps_the_zoom(plane: Plane, order: tuple[int, ...]) -> None:
    viewer, gateway, volume, _ = scene()
    viewer.scene.camera.zoom = 7.5
    assert gateway.jump(volume, plane, 4, (2.0, 8.0, 11.0))
    assert viewer.dims.order == order
    assert viewer.scene.camera.zoom == 7.5
    assert gateway.displayed_plane(volume) == plane
    assert gateway.current_index(volume, plane) == 4
    voxel = [2.0, 8.0, 11.0]
    voxel[volume.plane_axis(plane)] = 4
    expected = np.array(voxel) * volume.spacing_mm
    assert viewer.scene.camera.center[1:] == pytest.approx(expected[list(order[1:])])


def test_jump_without_a_centre_leaves_the_camera_and_the_other_sliders() -> None:
    viewer, gateway, volume, _ = scene()
    before, camera = viewer.dims.point, viewer.scene.camera.center
    gateway.jump(volume, "axial", 2)
    assert viewer.dims.point[1:] == before[1:]
    assert viewer.scene.camera.center == camera
    assert gateway.current_index(volume, "axial") == 2


def test_jump_in_3d_display_centres_only() -> None:
    viewer, gateway, volume, _ = scene()
    viewer.dims.ndisplay = 3
    gateway.jump(volume, "axial", 2, (2, 8, 11))
    assert viewer.dims.ndisplay == 3
    assert viewer.scene.camera.center == pytest.approx(np.multiply((2, 8, 11), volume.spacing_mm))
    assert gateway.displayed_plane(volume) is None


def test_a_volume_that_no_layer_shows() -> None:
    viewer, gateway, volume, source = scene()
    viewer.layers.remove(source)
    assert not gateway.holds(source)
    assert not gateway.jump(volume, "axial", 2)
    assert gateway.current_index(volume, "axial") is None
    assert gateway.displayed_plane(volume) is None


@pytest.mark.parametrize("axis", [0, 3])
def test_one_volume_of_several_gets_labels_at_its_own_step(axis: int) -> None:
    viewer = ViewerModel()
    gateway = LayerGateway(viewer)
    data = np.random.default_rng(0).integers(0, 255, (5, 34, 40), np.uint8)
    source = viewer.add_image(
        np.stack([data, data + 1, data + 2], axis), scale=np.insert([3.0, 1, -2], axis, 1), rgb=False
    )
    volume = volumes.volume_of(source, "mri", choice={axis: 1})
    layer = gateway.add_labels(running(volume), source)
    gateway.paint_masks(layer, {1: cropped(block(volume.shape, (1, 3), (4, 9), (0, 6)))})
    assert layer.ndim == 4
    inside = np.argwhere(layer.data)[0]
    assert inside[[a for a in range(4) if a != axis]].tolist() == [1, 4, 34]  # stored against the way it is shown
    there = source.world_to_data(layer.data_to_world(inside))
    assert there[axis] == 1
    assert np.delete(there, axis).tolist() == [1, 4, 34]
    assert gateway.jump(volume, "sagittal", 2, (1, 4, 2))
    assert gateway.displayed_plane(volume) == "sagittal"
    assert gateway.current_index(volume, "sagittal") == 2


def test_labels_on_a_picture() -> None:
    _, gateway, picture, source = scene(picture_of(np.random.default_rng(0).integers(0, 255, (34, 40, 3), np.uint8)))
    run = running(picture)
    run.predictions[0] = answer("axial", 0, polyp=block((34, 40), (3, 9), (4, 9)))
    layer = gateway.add_labels(run, source)
    assert layer.data.shape == (34, 40)
    assert np.array_equal(layer.data > 0, block((34, 40), (3, 9), (4, 9)))
    gateway.select_label(layer, 1)
    assert next(gateway.ours("outline")).ndim == 2
    assert gateway.jump(picture, "axial", 0, (0, 5, 6))
    assert gateway.viewer.scene.camera.center[1:] == pytest.approx((5, 6))


def test_events_are_heard_until_disconnected() -> None:
    viewer, gateway, volume, source = scene()
    layer = gateway.add_labels(running(volume), source)
    heard: list[Any] = []
    disconnects = [
        gateway.on_layers_changed(lambda: heard.append("layers")),
        gateway.on_view_changed(lambda: heard.append("view")),
        gateway.on_painted(layer, lambda stroke: heard.append(stroke.numbers)),
        gateway.on_selected_label(layer, lambda number: heard.append(number)),
        gateway.on_layer_event({"visible"}, lambda: heard.append("visible")),
    ]

    def act() -> list[Any]:
        heard.clear()
        viewer.layers.remove(viewer.add_image(np.eye(20)))
        gateway.jump(volume, "axial", 1 + len(heard))
        layer.paint((1, 4, 4), 3)
        layer.fill((1, 4, 4), 2)
        layer.selected_label = 5 + len(heard)
        source.visible = not source.visible
        return list(heard)

    said = act()
    assert {"layers", "view", "visible", frozenset({3}), frozenset({2, 3})} <= set(said)
    assert any(isinstance(s, int) and s >= 5 for s in said)
    for disconnect in disconnects * 2:
        disconnect()
    assert act() == []


def test_a_gateway_is_not_kept_by_its_viewer() -> None:
    viewer = ViewerModel()
    counts = []
    for _ in range(3):
        LayerGateway(viewer).on_layers_changed(lambda: None)()
        gc.collect()
        counts.append(len(viewer.layers.events.inserted.callbacks))
    assert len(set(counts)) == 1


def test_metadata_names_the_run() -> None:
    _, gateway, volume, source = scene()
    run = running(volume)
    layer = gateway.add_labels(run, source)
    assert layer.metadata[KEY]["run"] is run
    assert layer.metadata[KEY]["volume"] is volume
