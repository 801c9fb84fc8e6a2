"""The models that can be chosen, and how one is loaded. Nothing is downloaded here without being asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_unibiomed.settings import Settings

if TYPE_CHECKING:
    from unibiomed_core.engine.engine import Engine

ModelKind = Literal["embedded", "published", "folder"]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """One model of the chooser.

    Args:
        name: What the engine loads it by: preset, name on the hub, or folder.
        label: For people.
        about: Where it comes from, in a few words.
        size: On the disk, or roughly what a download fetches.
        here: Whether its weights are on this machine.
        targets: Modality -> names it was trained on; empty means free text.
    """

    name: str
    kind: ModelKind
    label: str
    about: str = ""
    size: str = ""
    licence: str = ""
    here: bool = True
    targets: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False)

    @property
    def can_download(self) -> bool:
        return self.kind == "published" and not self.here


EMBEDDED = ModelChoice("mini", "embedded", "mini (inside the package)")

LoadEngine = Callable[[ModelChoice, Settings], "Engine"]
"""Called in the model thread."""

Download = Callable[[str, Callable[[int, int], None]], Path]
"""Name on the hub and (bytes done, bytes in all) -> folder; what the second raises stops it."""


def choices(settings: Settings) -> tuple[ModelChoice, ...]:
    """Embedded models, published ones, and the folder of the preferences. Opens no socket and no weights."""
    from unibiomed_core import models

    found = []
    for row in models():
        embedded = row.about == "inside the package"
        kind: ModelKind = "embedded" if embedded else "published"
        label = f"{row.name} (inside the package)" if embedded else f"{row.name} (published, {row.size})"
        found.append(
            ModelChoice(row.name, kind, label, row.about, row.size, row.licence, row.folder is not None, row.targets)
        )
    if settings.weights_folder:
        found.append(folder_choice(Path(settings.weights_folder)))
    return tuple(found)


def folder_choice(folder: Path) -> ModelChoice:
    """Any folder with weights, such as that of a fine-tuned model; it is checked when it is loaded."""
    size = sum(file.stat().st_size for file in folder.glob("*") if file.is_file()) if folder.is_dir() else 0
    return ModelChoice(str(folder), "folder", folder.name, "a folder of yours", f"{size / 1e6:,.1f} MB")


def load_engine(choice: ModelChoice, settings: Settings) -> Engine:
    """Load a model; called in the model thread, where torch is imported.

    Raises:
        WeightsError: The model is not there, incomplete or damaged.
        DeviceError: Device or precision are not available, or memory does not suffice.
    """
    from unibiomed_core.engine.engine import Engine

    return Engine.load(choice.name, device=settings.device, dtype=settings.dtype, offline=settings.offline)


def fetch(name: str, on_progress: Callable[[int, int], None]) -> Path:
    """Download a published model; called in the model thread, and only after a click.

    Raises:
        WeightsError: The connection failed, there is no such repository, or the disk is full.
    """
    from unibiomed_core import download

    return download(name, on_progress)


def device_names() -> tuple[str, ...]:
    """What can be chosen to compute on; GPUs are listed once torch was loaded, which this does not do."""
    torch = _loaded_torch()
    if torch is None:
        return ("auto", "cpu")
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ("auto", *gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu")


def torch_has_no_gpu_support() -> bool:
    """Whether the torch that is loaded was built for the CPU only."""
    torch = _loaded_torch()
    return torch is not None and torch.version.cuda is None and not torch.backends.mps.is_built()


def give_back_memory() -> None:
    """After a model was dropped: return the device's cached blocks to other programs."""
    torch = _loaded_torch()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_text(device: str) -> str:
    """``5.1 of 24 GB`` of a GPU; empty for a CPU."""
    torch = _loaded_torch()
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f"{(total - free) / 1e9:.1f} of {total / 1e9:.0f} GB"


def _loaded_torch() -> Any:
    """The torch module where it is there; None also while the model thread is in the middle of importing it."""
    torch = sys.modules.get("torch")
    return None if torch is None or getattr(torch.__spec__, "_initializing", False) else torch


DEVICE_WORDS = {"cpu": "CPU", "mps": "Apple GPU"}
DTYPE_WORDS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "int8": "int8"}


def model_line(name: str, device: str, dtype: str, memory: str = "") -> str:
    """``● Ready – mini, GPU 0, bf16, 5.1 of 24 GB``."""
    place = f"GPU {device.partition(':')[2] or 0}" if device.startswith("cuda") else DEVICE_WORDS.get(device, device)
    parts = [name, place, DTYPE_WORDS.get(dtype, dtype), memory]
    return f"\u25cf Ready \u2013 {', '.join(part for part in parts if part)}"
