"""Device, precision and memory, decided once and used by everything that runs the model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unibiomed_core.errors import DeviceError
from unibiomed_core.model.config import UniBiomedConfig
from unibiomed_core.model.unibiomed import UniBiomed

INT8 = "int8"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, INT8: torch.float32}
"""Precision -> what values between layers are kept in."""

_MIB = 2**20
_RUNTIME_BYTES = 400 * _MIB
"""What the libraries themselves hold once loaded (measured on Linux, CPU build)."""

_MAX_BATCH = {"cuda": 16, "mps": 4, "cpu": 4}

_CPU_BATCH_BYTES = 256 * _MIB
"""On a CPU a few small slices at once save a tenth of the encoders' time; large ones fill the cores alone, and more of
them would only make stopping slower."""


@dataclass(frozen=True, slots=True)
class DevicePlacement:
    """Where and how the model runs.

    Args:
        dtype: Precision of the language side. SAM 2's weights stay float32 on every device: its positional matrix
            loses its meaning in half precision, and outlines move. On CUDA its image encoder runs under autocast.
        free_bytes: Memory that was free when this was decided.
        int8: The language side's linear layers are int8 (``engine/int8.py``) between values of ``dtype``.
    """

    device: torch.device
    dtype: torch.dtype
    free_bytes: int
    int8: bool = False

    @property
    def dtype_name(self) -> str:
        return INT8 if self.int8 else str(self.dtype).removeprefix("torch.")

    @property
    def working_bytes(self) -> int:
        """Budget for what one language or mask pass holds beyond the weights: an eighth of what is free."""
        return max(64 * _MIB, self.free_bytes // 8)

    @contextlib.contextmanager
    def encoder_precision(self) -> Iterator[None]:
        """Context for SAM 2's image encoder."""
        if self.device.type == "cuda" and self.dtype != torch.float32:
            with torch.autocast("cuda", dtype=self.dtype):
                yield
        else:
            yield


def choose(device: str = "auto", dtype: str = "auto") -> DevicePlacement:
    """Decide where to run.

    "auto" takes the first CUDA device, else Apple's GPU, else the CPU; bfloat16 on CUDA devices that compute it,
    float32 elsewhere.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: "auto", "float32", "bfloat16", "float16", or "int8" (CPU only).

    Raises:
        DeviceError: The device or the precision is unknown or not available here.
    """
    chosen = _device(device)
    return DevicePlacement(chosen, _dtype(dtype, chosen), free_bytes(chosen), dtype == INT8)


def place(model: UniBiomed, placement: DevicePlacement) -> UniBiomed:
    """Move a float32 model to its place and switch it to inference, in place.

    Raises:
        DeviceError: The device's memory does not suffice.
    """
    try:
        torch.nn.Module.to(model.vlm, placement.device, placement.dtype)
        model.bridge.to(placement.device, torch.float32)
        model.grounder.to(placement.device, torch.float32)
    except torch.OutOfMemoryError as cause:
        raise out_of_memory(model, placement) from cause
    return model.eval().requires_grad_(False)


def parameter_bytes(model: UniBiomed, placement: DevicePlacement) -> int:
    """Bytes of the weights once placed."""
    grounding = sum(p.numel() for p in model.grounder.parameters())
    packed = packed_elements(model) if placement.int8 else 0
    return 4 * grounding + placement.dtype.itemsize * (model.parameter_count - grounding) + packed


def activation_bytes(config: UniBiomedConfig, tiles: int = 1) -> int:
    """Estimated peak of what one slice needs beyond the weights, good to about a factor of two.

    SAM 2's finest level (S / 4 squared, decoder width) exists about a dozen times at the peak; the vision transformer
    holds its widened hidden layer and one attention table a tile. Fitted to measured peaks of hiera-tiny and
    hiera-large at 256 to 1024 pixels and of the 1B and mini language sides.
    """
    grounding, vision = config.grounding, config.vision
    fine = (grounding.image_size // 4) ** 2 * max(grounding.hidden, grounding.trunk_width) * 4
    patches = (vision.image_size // vision.patch_size) ** 2
    tile = patches * (4 * vision.mlp + vision.heads * patches) * 4
    return 12 * fine + tiles * tile


def feature_budget(config: UniBiomedConfig, placement: DevicePlacement) -> int:
    """Bytes of image features that are kept between questions.

    On a CPU small, so that memory stays flat as a volume's slices pass: 32 MiB, or four slices where these are
    larger. Elsewhere a twentieth of what is free, at most 1 GiB.
    """
    if placement.device.type != "cpu":
        return min(1024 * _MIB, placement.free_bytes // 20)
    grounding = config.grounding
    # Three levels of SAM 2, at the mask stride, 8 and 16, of growing width: C/8, C/4 and C.
    fine = (16 // grounding.mask_stride) ** 2
    cells = (grounding.image_size // 16) ** 2 * grounding.hidden * (fine // 8 + 4 // 4 + 1)
    tokens = config.vision.tokens_per_tile * config.language.hidden
    return min(max(32 * _MIB, 4 * 4 * (cells + tokens)), placement.free_bytes // 20)


def batch_size(config: UniBiomedConfig, placement: DevicePlacement) -> int:
    """How many slices are encoded at once."""
    room = placement.free_bytes // 2
    if placement.device.type == "cpu":
        room = min(room, _CPU_BATCH_BYTES)
    pre = config.preprocessing
    fits = room // activation_bytes(config, pre.max_tiles if pre.tiling == "dynamic" else 1)
    return int(max(1, min(_MAX_BATCH.get(placement.device.type, 1), fits)))


def memory_estimate(model: UniBiomed, placement: DevicePlacement, slices: int = 1) -> int:
    """Estimated peak memory in bytes of a run over ``slices`` at once, the libraries included."""
    pre = model.config.preprocessing
    tiles = pre.max_tiles if pre.tiling == "dynamic" else 1
    return _RUNTIME_BYTES + parameter_bytes(model, placement) + slices * activation_bytes(model.config, tiles)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU allocator and MPS raise a plain RuntimeError.
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory")
    )


def release(placement: DevicePlacement) -> None:
    """Give cached blocks back to the device."""
    if placement.device.type == "cuda":
        torch.cuda.empty_cache()
    elif placement.device.type == "mps":
        torch.mps.empty_cache()


def out_of_memory(model: UniBiomed, placement: DevicePlacement) -> DeviceError:
    """The error for memory that does not suffice even for one slice."""
    free, needed = free_bytes(placement.device), memory_estimate(model, placement)
    return DeviceError(
        "Out of memory",
        f"{placement.device} has {free / _MIB:,.0f} MiB free",
        f"about {needed / _MIB:,.0f} MiB for model and one slice",
        command="Close other programs, take a smaller model, or another device (--device cpu).",
        code="out_of_memory",
        values={"device": placement.device.type, "free_bytes": free, "needed_bytes": needed},
    )


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        # Not Linux: half of the memory that is built in, where that can be told.
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" in names:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        return 4096 * _MIB


def _device(name: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda:0" if cuda else "mps" if mps else "cpu")
    available = ["auto", "cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count() if cuda else 0))]
    available += ["mps"] if mps else []
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available:
        raise DeviceError(
            "Device not available",
            f"'{name}' was asked for",
            f"one of {', '.join(available)}",
            command="'unibiomed info' shows what was found.",
        )
    return torch.device(wanted)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return torch.bfloat16 if half else torch.float32
    if name not in DTYPES:
        raise DeviceError("Unknown precision", f"'{name}'", f"one of auto, {', '.join(DTYPES)}")
    if name == INT8 and device.type != "cpu":
        raise DeviceError("Precision not available", f"int8 on {device}", "a CPU for it, or bfloat16 or float32 here")
    if name == "float16" and device.type == "cpu":
        raise DeviceError(
            "Precision not available",
            "float16 on a CPU, where it is slower and overflows",
            "float32 or bfloat16",
            command="Leave --dtype out.",
        )
    return DTYPES[name]


def packed_elements(model: UniBiomed) -> int:
    """How many weights are held as int8; torch does not count them among the parameters."""
    kind = torch.ao.nn.quantized.dynamic.Linear
    return sum(m.in_features * m.out_features for m in model.vlm.modules() if isinstance(m, kind))
