"""Between layers and volumes. :class:`LayerGateway` is the only code that touches ``viewer.layers``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unibiomed_core.errors import ReadError
from unibiomed_core.modalities import choose_window
from unibiomed_core.report import colour, labels
from unibiomed_core.types import Report, StoredOrder, Volume

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

KEY = "unibiomed"
AXIS_LABELS = ("S-I", "A-P", "R-L")
"""From the first to the last axis: indices grow towards Inferior, Posterior, Left."""

LayerTuple = tuple[Any, dict[str, Any], str]


def image_layer(volume: Volume) -> LayerTuple:
    """A volume as an image layer in display order, with its exact geometry in the metadata.

    Pictures become 2D (or RGB) layers in pixels, volumes 3D layers in mm. Grey images are shown in the window that the
    model is given.
    """
    about: dict[str, Any] = {"name": volume.name, "metadata": {KEY: {"volume": volume}}}
    if not volume.is_rgb:
        window = choose_window(volume)
        about["contrast_limits"] = (window.low, window.high)
    if volume.is_2d:
        return volume.voxels[0], about | {"rgb": volume.is_rgb}, "image"
    units = "mm" if volume.spatial_unit == "mm" else "pixel"
    return volume.voxels, about | {"scale": volume.spacing_mm, "units": units, "axis_labels": AXIS_LABELS}, "image"


def volume_of(layer: Image, modality: str) -> Volume:
    """The volume behind an image layer; the layer is not changed.

    A layer of ours gives back exactly what was read. A layer of another reader has no direction: it is taken as it is
    shown, its sides are unknown, and both are said in the notes.

    Raises:
        ReadError: It has more than three dimensions, is rotated or sheared, or holds colour volumes.
    """
    known = layer.metadata.get(KEY, {}).get("volume")
    if known is not None and np.shares_memory(layer.data, known.voxels) and layer.data.size == known.voxels.size:
        return replace(known, modality=modality)
    data = np.asarray(layer.data)
    picture = data.ndim == 2 or (layer.rgb and data.ndim == 3)
    if layer.rgb and not picture:
        raise ReadError("Colour volume", f"the layer has shape {data.shape}", "a grey volume or one colour picture")
    if not picture and data.ndim != 3:
        raise ReadError(
            "Choose one volume", f"this layer has {data.ndim} dimensions", "2 or 3", "Pick a time point or channel."
        )
    linear = np.asarray(layer.affine.linear_matrix) @ np.asarray(layer.rotate)
    if not np.allclose(linear, np.diag(np.diag(linear))) or np.any(np.asarray(layer.shear)):
        raise ReadError(
            "Rotated layer", "the layer is turned or sheared in the viewer", "an upright one",
            "Open the file with UniBiomed, which keeps its tilt.",
        )  # fmt: skip
    if layer.rgb:
        data = data[..., :3]
    shape = data.shape[:2] if picture else data.shape
    spacing = (1.0, 1.0, 1.0) if picture else tuple(abs(float(s)) for s in layer.scale)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = -spacing[0], -spacing[1], -spacing[2], 1.0
    return Volume(
        voxels=data[np.newaxis] if picture else data,
        affine=affine,
        modality=modality,
        intensity_unit="intensity",
        spatial_unit="px" if picture else "mm",
        orientation_known=False,
        stored=StoredOrder((0, 1, 2), (False, False, False), tuple(int(n) for n in shape), affine),
        name=str(layer.name),
        notes=("This layer has no direction from its file: it is taken as it is shown, and sides are unknown.",),
    )


class LayerGateway:
    """Reads image layers and adds result layers of one viewer. It never changes or removes a layer of the user's."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer

    def images(self) -> Iterator[Image]:
        """Image layers that can be asked about, top one first."""
        from napari.layers import Image

        yield from (layer for layer in reversed(self.viewer.layers) if isinstance(layer, Image))

    def add_image(self, volume: Volume) -> Image:
        """Show a volume; a volume starts at its middle slice."""
        data, about, _ = image_layer(volume)
        return self.viewer.add_image(data, **about)

    def holds(self, layer: Image) -> bool:
        """Whether a layer is still in this viewer."""
        return layer in self.viewer.layers

    def add_report(self, report: Report, volume: Volume, source: Image) -> Labels:
        """A labels layer that lies on its source, one value a finding, with the findings as features."""
        import pandas as pd
        from napari.utils.colormaps import DirectLabelColormap

        found = labels(report, volume)
        data = found[0] if volume.is_2d else found
        colours: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
        colours |= {f.number: colour(f, volume.modality) for f in report.findings}
        rows = [{"index": 0, "finding": ""}] + [
            {
                "index": f.number,
                "finding": f.phrase,
                "presence": round(f.presence, 3),
                "volume_ml": f.measurements.volume_ml,
                "side": f.measurements.side,
                "flags": ", ".join(f.flags),
            }
            for f in report.findings
        ]
        layer = self.viewer.add_labels(
            data,
            name=f"{source.name} findings",
            scale=source.scale,
            translate=source.translate,
            units=source.units,
            axis_labels=source.axis_labels,
            opacity=0.45,
            features=pd.DataFrame(rows),
            colormap=DirectLabelColormap(color_dict=colours),
            metadata={KEY: {"report": report, "volume": volume}},
        )
        if report.findings and not volume.is_2d:
            largest = max(report.findings, key=lambda f: f.mask.count)
            self.jump(largest.measurements.slice_largest)
        return layer

    def jump(self, index: int) -> None:
        """Show a slice of the first axis."""
        self.viewer.dims.set_current_step(0, index)
