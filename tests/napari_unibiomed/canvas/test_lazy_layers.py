"""Layers that are loaded or computed on demand: guarded like files, read in blocks, never in the window's thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

try:
    from napari.components import ViewerModel

    from tests.napari_unibiomed.dock_kit import Open, open_dock
except ImportError as error:
    pytest.skip(f"napari cannot be loaded ({error})", allow_module_level=True)

from napari_unibiomed.canvas import lazy_layers
from napari_unibiomed.canvas.volumes import volume_of
from tests.patience import GUARD_S
from unibiomed_core.errors import ReadError
from unibiomed_core.io import guard

pytestmark = pytest.mark.filterwarnings("ignore")  # napari and pydantic warn of one another's changes
__all__ = ["open_dock"]

VALUES = np.random.default_rng(4).integers(0, 200, (6, 34, 40)).astype(np.uint16)


class Lazy:
    """An array that computes its planes when they are asked for, and remembers which, and in which thread."""

    def __init__(self, shape: tuple[int, ...] = VALUES.shape, chunk: int = 0) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(np.uint16), len(shape)
        self.size = int(np.prod(shape, dtype=object))
        self.nbytes = 2 * self.size
        if chunk:
            self.chunks = (chunk, *shape[1:])
        self.asked: list[tuple[int, str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __getitem__(self, where: Any) -> np.ndarray:
        where = where if isinstance(where, tuple) else (where,)
        first = where[0]
        planes = range(self.shape[0])[first] if isinstance(first, slice) else [int(first)]
        self.gate.wait(GUARD_S)
        self.asked.append((len(planes), threading.current_thread().name))
        whole = np.stack([VALUES[k % len(VALUES)] for k in planes]) if len(planes) < 50 else np.zeros(0)
        return (whole if isinstance(first, slice) else whole[0])[(..., *where[1:])] if len(where) > 1 else whole

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise AssertionError("the whole array was computed")


def layer_of(data: Any, viewer: Any = None) -> Any:
    return (viewer or ViewerModel()).add_image(data, contrast_limits=(0, 200), scale=(2, 1, 1), rgb=False, name="lazy")


@pytest.mark.parametrize(("chunk", "blocks"), [(0, [1] * 6), (4, [4, 2])])
def test_blocks_of_slices_are_read_one_by_one(chunk: int, blocks: list[int]) -> None:
    """bugs 09."""
    data = Lazy(chunk=chunk)
    layer = layer_of(data)
    data.asked.clear()
    volume = volume_of(layer, "mri")
    assert np.array_equal(volume.voxels, VALUES)
    assert [count for count, _ in data.asked] == blocks
    lazy_layers.keep(layer, {}, VALUES)
    volume_of(layer, "pet")
    assert len(data.asked) == len(blocks)


def test_what_does_not_fit_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """bugs 09: a layer of 34 GB began to be computed with 22 GB free."""
    data = Lazy((400_000, 1024, 1024))
    layer = ViewerModel().add_image(Lazy(), contrast_limits=(0, 200), rgb=False)
    monkeypatch.setattr(lazy_layers, "finest", lambda layer: data)
    with pytest.raises(ReadError, match="Image too large"):
        volume_of(layer, "mri", choice={})
    assert data.asked == []


def test_dask_arrays_and_memory_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = pytest.importorskip("dask.array")
    assert np.array_equal(volume_of(layer_of(array.from_array(VALUES, chunks=(2, 34, 40))), "mri").voxels, VALUES)
    stored = np.memmap(tmp_path / "a.raw", np.uint16, "w+", shape=VALUES.shape)
    stored[:] = VALUES
    layer = layer_of(stored)
    assert lazy_layers.is_lazy(layer)
    assert np.array_equal(volume_of(layer, "mri").voxels, VALUES)
    monkeypatch.setattr(guard, "available_bytes", lambda: 1000)
    for data in (array.from_array(VALUES, chunks=(2, 34, 40)), stored):
        with pytest.raises(ReadError, match="Image too large"):
            volume_of(layer_of(data), "mri")


def test_a_block_that_cannot_be_read_is_refused_in_words() -> None:
    data = Lazy()
    layer = layer_of(data)
    data.gate = type("Broken", (), {"wait": lambda self, s: (_ for _ in ()).throw(OSError("the store is gone"))})()
    with pytest.raises(ReadError, match="the store is gone"):
        volume_of(layer, "mri")


@pytest.mark.window
def test_the_window_never_computes_a_lazy_layer(open_dock: Open) -> None:
    """bugs 09: choosing it held the window until all of it was there."""
    kit = open_dock()
    data = Lazy()
    layer_of(data, kit.viewer)
    shown = len(data.asked)  # what napari needed for its canvas
    kit.dock.image.set_modality("mri")
    binding = kit.dock.image_binding
    data.gate.clear()
    binding.take_choice()
    assert binding.volume is None
    assert binding.problem is not None
    assert binding.problem.title == "Reading the layer"
    data.gate.set()
    kit.until(lambda: binding.volume is not None)
    assert np.array_equal(binding.volume.voxels, VALUES)
    assert {name for _, name in data.asked[shown:]} == {"unibiomed-lazy-layer"}
    assert kit.session is not None
