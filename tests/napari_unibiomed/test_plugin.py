"""Shipped samples and a real engine with random weights through layers and back, on a viewer without a window."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

try:
    from napari.components import ViewerModel
except ImportError as error:
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)
from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.placement import AXIS_LABELS, KEY, image_layer
from napari_unibiomed.canvas.volumes import volume_of
from napari_unibiomed.jobs import Job, Run
from tests.unibiomed_core.engine.toy import ct_volume, toy_engine
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.io import read
from unibiomed_core.report import labels
from unibiomed_core.samples import samples
from unibiomed_core.updates import Done, SliceDone

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes


@pytest.mark.parametrize("name", list(samples()))
def test_a_sample_goes_into_a_layer_and_back_exactly(name: str) -> None:
    volume = read(samples()[name].path, samples()[name].modality)
    data, about, kind = image_layer(volume)
    assert kind == "image"
    layer = ViewerModel().add_image(data, **about)
    again = volume_of(layer, volume.modality)
    assert again is volume
    assert np.array_equal(layer.data, volume.voxels[0] if volume.is_2d else volume.voxels)
    if not volume.is_2d:
        assert tuple(layer.scale) == pytest.approx(volume.spacing_mm)
        assert layer.axis_labels == AXIS_LABELS


def test_a_run_becomes_labels_on_the_image_and_changes_nothing_else() -> None:
    gateway = LayerGateway(ViewerModel())
    source = gateway.add_image(ct_volume(6))
    before = hashlib.sha256(np.ascontiguousarray(source.data)).hexdigest()
    volume = volume_of(source, "ct")
    run = Run(Job("segment", volume, RunRequest.segment("liver", "spleen")), 1)
    made = gateway.add_labels(run, source)
    painted = []
    for update in toy_engine().run(volume, RunRequest.segment("liver", "spleen")):
        if isinstance(update, SliceDone):
            run.take(update.index, update.predictions)
            assert gateway.update_labels(made, run, shown_slice=update.index)
            painted.append(bool(made.data[update.index].any()))
        elif isinstance(update, Done):
            run.report = update.report
    assert any(painted)
    gateway.update_labels(made, run)
    assert run.report is not None
    assert np.array_equal(made.data, labels(run.report, volume))
    assert list(made.features["index"]) == [0, *(f.number for f in run.report.findings)]
    assert hashlib.sha256(np.ascontiguousarray(source.data)).hexdigest() == before
    assert list(gateway.images()) == [source]
    assert made.metadata[KEY]["run"] is run
