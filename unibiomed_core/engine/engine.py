"""The engine: a model, and a whole volume or picture run through it. The only class most callers meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from unibiomed_core.engine import devices
from unibiomed_core.engine.int8 import quantise_gated
from unibiomed_core.engine.predictor import Predictor
from unibiomed_core.engine.volume import scene
from unibiomed_core.engine.volume.request import RunRequest
from unibiomed_core.engine.volume.run import run
from unibiomed_core.model import weights
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed
from unibiomed_core.types import Prediction, Volume
from unibiomed_core.updates import CancelToken, Update


class Engine(Predictor):
    """A predictor that also runs whole volumes, and checks itself where it was asked for int8.

    Args:
        model: As for :class:`Predictor`, with all that follow.

    Raises:
        DeviceError: The device or precision is not available, memory does not suffice, or int8 would change masks.
    """

    def __init__(
        self,
        model: UniBiomed,
        processor: Processor,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        folder: Path | None = None,
    ) -> None:
        super().__init__(model, processor, device=device, dtype=dtype, batch_size=batch_size, folder=folder)
        if self.placement.int8:
            quantise_gated(self)

    @classmethod
    def load(
        cls,
        model: str = "mini",
        *,
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = True,
        batch_size: int | None = None,
    ) -> Engine:
        """Load a model by preset name, folder or hub id.

        Args:
            offline: Never open a socket; what was downloaded before is used.

        Raises:
            WeightsError: The model is not there, incomplete, damaged or of another kind.
            DeviceError: As for the constructor.
        """
        devices.choose(device, dtype)  # a wrong device is told before gigabytes are read
        folder = weights.resolve(model, offline)
        joint, processor = weights.load(folder, device="cpu", dtype=torch.float32)
        return cls(joint, processor, device=device, dtype=dtype, batch_size=batch_size, folder=folder)

    def with_modality(self, volume: Volume) -> Volume:
        """A picture whose modality nobody told with the one that the model sees; any other image as it is.

        Raises:
            ReadError: No modality is likely enough; the likely ones are offered.
        """
        return scene.with_modality(self, volume)

    def run(
        self,
        volume: Volume,
        request: RunRequest = RunRequest(),
        *,
        cancel: CancelToken | None = None,
        known: Mapping[int, tuple[Prediction, ...]] | None = None,
    ) -> Iterator[Update]:
        """A whole volume or picture as a stream of updates; see :func:`unibiomed_core.engine.volume.run.run`."""
        return run(self, volume, request, cancel=cancel, known=known)
