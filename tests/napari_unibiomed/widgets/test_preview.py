"""The picture that the model gets, pixel by pixel, and that the preview shows exactly this one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unibiomed.widgets.image_section import model_picture
from tests.napari_unibiomed.fake_engine import ct, picture
from unibiomed_core.modalities import CT_WINDOWS, to_rgb
from unibiomed_core.types import Prompt, Region


def test_the_slice_is_windowed_and_keeps_its_way_round() -> None:
    volume = ct(8, 32)
    for plane, index in (("axial", 3), ("coronal", 5), ("sagittal", 9)):
        seen = model_picture(volume, plane, index, CT_WINDOWS["lung"])  # type: ignore[arg-type]
        assert np.array_equal(seen, to_rgb(volume.slice(index, plane).pixels, CT_WINDOWS["lung"]))  # type: ignore[arg-type]


def test_the_box_is_a_green_ring_of_three_pixels_on_its_own_slice_only() -> None:
    volume, region = ct(8, 40), Region(8, 10, 30, 25, "axial", 3)
    plain = model_picture(volume, "axial", 3)
    boxed = model_picture(volume, "axial", 3, region=region)
    changed = np.any(plain != boxed, axis=2)
    expected = np.zeros((40, 40), bool)
    expected[9:27, 7:32] = True
    expected[12:24, 10:29] = False
    expected[[9, 9, 26, 26], [7, 31, 7, 31]] = False
    assert np.array_equal(changed, expected)
    assert (boxed[changed] == (0, 255, 0)).all()
    assert np.array_equal(model_picture(volume, "axial", 4, region=region), model_picture(volume, "axial", 4))
    assert np.array_equal(model_picture(volume, "coronal", 3, region=region), model_picture(volume, "coronal", 3))


def test_colour_pictures_go_in_as_they_are() -> None:
    volume = picture()
    assert np.array_equal(model_picture(volume, "axial", 0), volume.voxels[0])


def test_it_is_the_picture_that_the_engine_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tests.unibiomed_core.engine.toy import toy_engine

    engine, volume, region = toy_engine(), ct(3, 64), Region(8, 10, 40, 45, "axial", 1)
    read: list[Any] = []
    tokens = engine.features.image_tokens
    monkeypatch.setattr(
        type(engine.features), "image_tokens", lambda _, given: read.extend(p.rgb for p in given) or tokens(given)
    )
    window = CT_WINDOWS["soft tissue"]
    engine.predict([volume.slice(1)], [Prompt("roi_class", region=region, max_new_tokens=2)], window)
    assert len(read) == 1
    assert np.array_equal(read[0], model_picture(volume, "axial", 1, window, region))


@pytest.mark.window
def test_the_preview_shows_exactly_this_picture(qtbot: Any) -> None:
    from napari_unibiomed.widgets.image_section import LARGEST_HEIGHT, Preview

    preview = Preview()
    qtbot.addWidget(preview)
    seen = model_picture(ct(4, 50), "axial", 2, region=Region(8, 8, 30, 30, "axial", 2))
    preview.resize(50, 50)
    preview.show_picture(seen)
    assert np.array_equal(preview.shown, seen)
    shown = preview.pixmap().toImage().convertToFormat(preview.pixmap().toImage().Format.Format_RGB888)
    assert (shown.width(), shown.height()) == (50, 50)
    for x, y in ((0, 0), (8, 20), (25, 31), (49, 49)):
        # A virtual screen may have 16 bits a pixel.
        assert shown.pixelColor(x, y).getRgb()[:3] == pytest.approx(tuple(int(v) for v in seen[y, x]), abs=8)
    preview.resize(600, 600)
    assert preview.sizeHint().height() <= LARGEST_HEIGHT
    preview.say("Nothing to show yet.")
    assert preview.shown is None
