"""What is installed and what it can do: versions, devices, and installations known to be broken."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from importlib import metadata

from unibiomed_core import __version__

PACKAGES = (
    "torch", "transformers", "tokenizers", "safetensors", "peft", "numpy", "scipy", "scikit-image",
    "SimpleITK", "nibabel", "pydicom", "napari", "PyQt6",
)  # fmt: skip

TORCHVISION_CURE = (
    "Run 'pip uninstall torchvision': nothing here needs it, and one that was built for another PyTorch keeps "
    "transformers from loading. With CUDA, the torchvision that matches your torch also does."
)


def versions() -> dict[str, str]:
    """Ours, Python's and each package's version; "not installed" where there is none. Imports none of them."""
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    found = {"unibiomed": __version__, "python": system}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def devices() -> list[str]:
    """What the model can run on, each with its memory; imports torch.

    Raises:
        ImportError: torch is not installed, or broken.
    """
    import torch

    found = [f"cpu: {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            found.append(f"cuda:{number}: {facts.name}, {facts.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps: Apple GPU")
    return found


def torchvision_problem() -> str:
    """What importing torchvision fails with; empty where it works or is not installed.

    The import runs in a process of its own: a broken one can leave half-registered operators behind.
    """
    if importlib.util.find_spec("torchvision") is None:
        return ""
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")
