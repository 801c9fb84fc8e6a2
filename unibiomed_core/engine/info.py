"""What is known about a loaded model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibiomed_core.engine.devices import DevicePlacement
from unibiomed_core.files import describe_file, read_json
from unibiomed_core.model.folder import MANIFEST, WEIGHTS
from unibiomed_core.model.unibiomed import UniBiomed


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known about the model, for reports and lists; plain values.

    Args:
        layout: "unibiomed", "sa2va_chat" (published) or "memory" for a model that came from no folder.
        folder: Name of its folder, without the path.
        sha256: Hash of the weights file; empty where there is none.
        targets: Modality -> names it was trained on; empty means free text.
        default_targets: Modality -> what a report looks for when nothing is named.
        facts: Training data and the like.
        presence_threshold: Masks of a lower presence are none, 0..1.
        presence_thresholds: The same for single targets, by name.
    """

    name: str
    layout: str
    folder: str
    licence: str
    parameters: int
    sha256: str
    device: str
    dtype: str
    targets: Mapping[str, tuple[str, ...]]
    default_targets: Mapping[str, tuple[str, ...]]
    facts: Mapping[str, str]
    presence_threshold: float
    presence_thresholds: Mapping[str, float]

    def provenance(self) -> dict[str, Any]:
        """What a report states about its model."""
        names = ("name", "layout", "folder", "licence", "parameters", "sha256", "device", "dtype", "presence_threshold")
        stated = {name: getattr(self, name) for name in names}
        return {**stated, "presence_thresholds": dict(self.presence_thresholds), "facts": dict(self.facts)}


def describe(model: UniBiomed, placement: DevicePlacement, folder: Path | None) -> ModelInfo:
    """The facts of a model at its place; ``folder`` is where its weights came from."""
    config = model.config
    layout, sha256 = ("memory", "") if folder is None else _source(folder)
    return ModelInfo(
        name=config.name,
        layout=layout,
        folder="" if folder is None else folder.name,
        licence=config.facts.get("licence", ""),
        parameters=model.parameter_count,
        sha256=sha256,
        device=str(placement.device),
        dtype=placement.dtype_name,
        targets=config.targets,
        default_targets=config.default_targets,
        facts=config.facts,
        presence_threshold=config.presence.threshold,
        presence_thresholds=config.presence.thresholds,
    )


def _source(folder: Path) -> tuple[str, str]:
    """(layout, SHA-256 of the weights) of a folder; several files give the hash over their hashes, in order of name."""
    manifest = folder / MANIFEST
    if manifest.is_file():  # checked while loading, so not read a second time
        return "unibiomed", str(read_json(manifest)[WEIGHTS]["sha256"])
    hashes = [describe_file(file)["sha256"] for file in sorted(folder.glob("*.safetensors"))]
    return "sa2va_chat", hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
