"""ux 9: which plane a run takes, that it is said, and views that stand upright."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari.layers")
from napari.components import ViewerModel

from napari_unibiomed.canvas.layers import LayerGateway
from napari_unibiomed.canvas.orientation import OrientationLetters
from tests.hand_volumes import canonical_affine, volume_of
from tests.napari_unibiomed.dock_kit import Open, open_dock  # noqa: F401
from tests.napari_unibiomed.fake_engine import FakeEngine, ct
from unibiomed_core.types import PLANES, Volume

pytestmark = pytest.mark.filterwarnings("ignore")

LIVER = {"liver": dict.fromkeys(range(3, 14), (20, 20, 60, 50))}
UPRIGHT = {"axial": "APRL", "coronal": "SIRL", "sagittal": "SIAP"}
"""Letters at the top, bottom, left and right."""


def anisotropic(spacing: tuple[float, float, float]) -> Volume:
    values = np.random.default_rng(0).integers(-1000, 1000, (18, 20, 24), dtype=np.int16)
    return volume_of(values, canonical_affine(spacing))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("before", list(permutations(range(3))))
def test_a_plane_stands_upright_whatever_was_shown(plane: Any, before: tuple[int, ...]) -> None:
    viewer = ViewerModel()
    gateway = LayerGateway(viewer)
    letters = OrientationLetters(gateway)
    volume = anisotropic((4, 1, 1))
    gateway.add_image(volume)
    for flips, ndisplay in (*product(product((1, -1), repeat=3), (2,)), ((1, 1, 1), 3)):
        viewer.layers[0].scale = np.multiply((4, 1, 1), flips)
        viewer.dims.order, viewer.dims.ndisplay = before, ndisplay
        viewer.scene.camera.orientation2d = ("up", "left")
        assert gateway.show_plane(volume, plane)
        assert gateway.displayed_plane(volume) == plane
        now = letters.current()
        assert "".join(now[edge] for edge in ("top", "bottom", "left", "right")) == UPRIGHT[plane]


@pytest.mark.parametrize(
    ("spacing", "plane"),
    [((4, 1, 1), "axial"), ((1, 4, 1), "coronal"), ((1, 1, 4), "sagittal"), ((1, 1, 1), None), ((1, 2, 2), None)],
)
def test_the_plane_of_the_acquisition_has_the_longest_steps(spacing: tuple[float, float, float], plane: Any) -> None:
    volume = anisotropic(spacing)
    assert volume.acquisition_plane == plane
    assert volume.default_plane == (plane or "axial")
    assert replace(volume, spatial_unit="px").acquisition_plane is None


@pytest.mark.window
def test_a_report_takes_the_plane_of_the_acquisition_whatever_is_shown(open_dock: Open) -> None:  # noqa: F811
    kit = open_dock(FakeEngine(LIVER), image=ct(14, 64))
    dock = kit.dock
    acquired = dock.image_binding.volume.default_plane
    dock.image.planes.buttons["sagittal"].click()
    assert dock.image_binding.plane == "sagittal"
    assert f"14 {acquired} slices" in dock.run.estimate.text()
    dock.run_report()
    kit.until_idle()
    run = kit.session.current
    assert run.job.request.plane == acquired == "axial"
    assert f"{acquired} slices" in run.report.narrative
    dock.image.plane.choose("shown")
    assert "64 sagittal slices" in dock.run.estimate.text()
    dock.run_report()
    kit.until_idle()
    assert kit.session.current.job.request.plane == "sagittal"
    assert "64 sagittal slices" in kit.session.current.report.narrative
