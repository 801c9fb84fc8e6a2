"""Where the viewer looks: slices, planes and the camera, in the axes of a layer; and connections that can be undone."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.viewer import Viewer
from numpy.typing import NDArray

from unibiomed_core.types import PLANES, Plane

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_unibiomed.canvas.placement import Placement


def connect(emitters: Iterable[Any], call: Callable[[Any], None]) -> Callable[[], None]:
    """Connect one function to several events; what is returned disconnects it and may be called twice."""
    held = list(emitters)
    for emitter in held:
        emitter.connect(call)

    def disconnect() -> None:
        while held:
            held.pop().disconnect(call)

    return disconnect


def turned(layer: Layer, step: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """A step in data coordinates as a step of ``layer.translate``: scaled, sheared and rotated, without its affine."""
    from napari.utils.transforms import Affine

    own = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, translate=np.zeros(layer.ndim))
    return np.asarray(own(np.asarray(step, float)))


def point(viewer: ViewerModel) -> NDArray[np.float64]:
    """World position of the sliders."""
    return np.asarray(viewer.dims.point, float)


def world_axis(viewer: ViewerModel, layer: Layer, placement: Placement, axis: int) -> int:
    """The slider that steps along a canonical axis; a layer with fewer dimensions lies along the last sliders."""
    before, after = np.zeros(3), np.eye(3)[axis]
    ends = [np.asarray(layer.data_to_world(placement.to_position(v))) for v in (before, after)]
    return int(np.abs(ends[1] - ends[0]).argmax()) + viewer.dims.ndim - layer.ndim


def slider_number(viewer: ViewerModel, layer: Layer, placement: Placement, axis: int, index: int) -> int:
    """What the viewer's slider shows for the slice ``index`` along a canonical axis.

    It is the index itself until layers with other spacings or units give the slider a common, finer step.
    """
    voxel = placement.to_voxel(layer.world_to_data(point(viewer)))
    voxel[axis] = index
    slider = world_axis(viewer, layer, placement, axis)
    world = np.asarray(layer.data_to_world(placement.to_position(voxel)))[slider - viewer.dims.ndim + layer.ndim]
    steps = viewer.dims.range[slider]
    return round((float(world) - steps.start) / (steps.step or 1.0))


def displayed_plane(viewer: ViewerModel, layer: Layer, placement: Placement) -> Plane | None:
    """The plane of a volume that is shown, None in 3D display."""
    if viewer.dims.ndisplay != 2:
        return None
    hidden = set(viewer.dims.not_displayed)
    cut = [axis for axis in range(3) if world_axis(viewer, layer, placement, axis) in hidden]
    return PLANES[cut[0]] if len(cut) == 1 else None


def show_plane(viewer: ViewerModel, layer: Layer, placement: Placement, axis: int) -> None:
    """Show the slices across a canonical axis upright, whatever order and direction the layer's data have.

    The head, in axial slices the front of the patient, is up; the patient's right, in sagittal slices the front, is on
    the left of the screen, as radiologists look at it.

    Args:
        axis: Canonical axis that the slices are taken across.
    """
    if len(placement.order.shape) != 3:
        return
    dims = viewer.dims
    stand_on_slices(viewer, layer, placement)
    sliders = [world_axis(viewer, layer, placement, a) for a in range(3)]
    down, right = (a for a in range(3) if a != axis)  # canonical axes grow towards feet, back and left
    others = [a for a in range(dims.ndim) if a not in sliders]
    dims.ndisplay = 2
    dims.order = (*others, sliders[axis], sliders[down], sliders[right])
    start = np.asarray(layer.data_to_world(placement.to_position(np.zeros(3))))
    ahead = []
    for canonical in (down, right):
        end = np.asarray(layer.data_to_world(placement.to_position(np.eye(3)[canonical])))
        ahead.append((end - start)[sliders[canonical] - dims.ndim + layer.ndim] > 0)
    viewer.scene.camera.orientation2d = ("down" if ahead[0] else "up", "right" if ahead[1] else "left")
    viewer.fit_to_view()


def stand_on_slices(
    viewer: ViewerModel, layer: Layer, placement: Placement, voxel: Sequence[float] | NDArray[np.float64] | None = None
) -> None:
    """Bring every slider to the whole slice of a volume that is nearest to a canonical (z, y, x) voxel.

    Args:
        voxel: None takes the sliders' own place. Other layers can leave them between two slices of this one.
    """
    if len(placement.order.shape) != 3:
        return
    dims = viewer.dims
    near = placement.to_voxel(layer.world_to_data(point(viewer))) if voxel is None else np.asarray(voxel, float)
    sizes = np.array([placement.order.shape[a] for a in placement.order.axes])
    whole = np.clip(np.rint(near), 0, sizes - 1)
    dims.set_point(range(dims.ndim - layer.ndim, dims.ndim), layer.data_to_world(placement.to_position(whole)))


def jump(
    viewer: ViewerModel, layer: Layer, placement: Placement, axis: int, index: int, centre: Sequence[float] | None
) -> None:
    """Show the slice ``index`` along a canonical axis, and centre the camera without a change of zoom.

    All sliders come to stand on whole slices: napari does not show a shape that is drawn between two.

    Args:
        centre: Canonical (z, y, x) voxel; None leaves sliders of other axes and the camera.
    """
    dims, camera = viewer.dims, viewer.scene.camera
    lead = dims.ndim - layer.ndim
    here = placement.to_voxel(layer.world_to_data(point(viewer)))
    voxel = np.array(here if centre is None else centre, float)
    voxel[axis] = index
    world = np.asarray(layer.data_to_world(placement.to_position(voxel)))
    if len(placement.order.shape) == 3:
        stand_on_slices(viewer, layer, placement, voxel)
        sliders = [world_axis(viewer, layer, placement, a) for a in range(3)]
        if dims.ndisplay == 2 and sliders[axis] in dims.displayed:
            zoom = camera.zoom
            others = [a for a in range(dims.ndim) if a not in sliders]
            dims.order = (*others, sliders[axis], *sorted(a for a in sliders if a != sliders[axis]))
            camera.zoom = zoom  # napari fits the view to a new order
    if centre is not None:
        shown = [float(world[a - lead]) for a in dims.displayed if a >= lead]
        camera.center = (*camera.center[: 3 - len(shown)], *shown)


MOST_SINCE = 1.25
"""Factor between two zooms that napari's own panels make by the room they take."""


class FittedView:
    """Keeps the whole picture in view while docks take room from the canvas, until the user moves the camera.

    napari fits the view when the first layer comes and leaves the camera as it is from then on, so that a dock that
    opens would cut a whole picture at its sides.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = weakref.ref(viewer)
        self._fitted: NDArray[np.float64] | None = None
        self._disconnect = [
            connect([viewer.events.reset_view], lambda _: self._on_fitted()),
            connect([viewer.canvas.events.size], lambda _: self._on_size()),
        ]
        if viewer.layers and viewer.dims.ndisplay == 2:
            self._look(viewer)

    def close(self) -> None:
        """Leave the camera to the user."""
        while self._disconnect:
            self._disconnect.pop()()

    def _look(self, viewer: ViewerModel) -> None:
        """Find out whether a picture that is there already is in view as napari fits it.

        Its controls may have taken room from the canvas since, so the zoom may differ a little; the centre may not: to
        zoom or pan with the mouse moves it.
        """
        camera = viewer.scene.camera
        before, center, zoom = _place(viewer), camera.center, camera.zoom
        viewer.fit_to_view()
        fitted = _place(viewer)
        if not np.allclose(before[:2], fitted[:2]) or not 1 / MOST_SINCE < before[2] / fitted[2] < MOST_SINCE:
            camera.center, camera.zoom, self._fitted = center, zoom, None

    def _on_fitted(self) -> None:
        viewer = self._viewer()
        self._fitted = None if viewer is None else _place(viewer)

    def _on_size(self) -> None:
        viewer = self._viewer()
        if viewer is None or viewer.dims.ndisplay != 2 or min(viewer.canvas.size) < 1:
            return
        if _alike(_place(viewer), self._fitted):
            viewer.fit_to_view()


def _place(viewer: ViewerModel) -> NDArray[np.float64]:
    """Where the camera looks in 2D, and its zoom; what it says of the third axis there is not the user's."""
    camera = viewer.scene.camera
    return np.array([*camera.center[-2:], camera.zoom])


def _alike(place: NDArray[np.float64], fitted: NDArray[np.float64] | None) -> bool:
    """One step of the mouse wheel changes the zoom by far more; drawing changes no more than the last digits."""
    return fitted is not None and np.allclose(place, fitted, rtol=1e-4)


def plain_viewer(viewer: Viewer) -> Viewer:
    """The viewer behind the proxy that napari hands to plugins.

    A proxy makes a new proxy of every layer that is asked for, so that no layer would be the one it was before.
    """
    plain: Viewer = getattr(viewer, "__wrapped__", viewer)
    return plain
