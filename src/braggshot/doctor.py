"""Examine the machine and the installation for users and bug reports: versions, devices, networks, plug-ins, optional parts."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from braggshot.gate import free_memory

PACKAGE = Path(__file__).parent
"""Folder of the installed package."""
EXTRAS = {
    "view": "results and live scans in the browser",
    "notebook": "results, views and live scans in Jupyter",
    "live": "frames of folders, EPICS and DECTRIS detectors",
    "tiled": "writing into a Tiled catalogue",
    "series": "Parquet tables of series",
    "cluster": "many scans at once, over processes or machines",
    "train": "training a network",
    "pyfai": "the gaps of detectors that files only name",
    "ewoks": "a task in workflows of Ewoks",
    "atomistic": "simulated crystals relaxed atom by atom",
}
"""Optional parts (extras) of the program, and the purpose of each; extras for developers are left out."""
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "HDF5_PLUGIN_PATH",
    "MKL_NUM_THREADS",
    "NUMBA_CACHE_DIR",
    "NUMBA_DISABLE_JIT",
    "OMP_NUM_THREADS",
)
"""Environment variables that affect the devices, the number of threads, the compilation or the filters of HDF5."""


def examine() -> dict[str, dict[str, Any]]:
    """Return what was found on this machine, as a table of plain values for each topic.

    For a package that is absent or too old, the value holds the command that installs it.
    """
    return {
        "versions": _versions(),
        "devices": _devices(),
        "memory": _memory(),
        "weights": _weights(),
        "optional": {extra: describe_extra(extra) for extra in EXTRAS},
        "plug-ins": _plugins(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
    }


def _versions() -> dict[str, Any]:
    """Return the versions of the program, of Python and of the required packages."""
    programs = {
        "braggshot": _installed_version("braggshot") or "not installed: it runs from its source",
        "python": platform.python_version(),
    }
    places = {"system": platform.platform(), "executable": sys.executable, "package": str(PACKAGE)}
    return {**programs, **places, **{requirement.name: describe_requirement(requirement) for requirement in requirements_of("")}}


def _devices() -> dict[str, Any]:
    """Return the processor and the GPUs that torch can use."""
    import torch

    from braggshot.nn.predict import fast_bfloat16

    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    gpu_names = [f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for gpu in gpus]
    return {
        "auto": "cuda" if torch.cuda.is_available() else "cpu",
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": fast_bfloat16(torch.device("cpu")),
        "cuda": gpu_names or ("no device found" if torch.version.cuda else "absent: this torch was built without CUDA"),
    }


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _memory() -> dict[str, Any]:
    """Return the memory that is free without swapping, and the memory of the machine."""
    free = free_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {name: None if size is None else f"{size / 1e9:.1f} GB" for name, size in (("free", free), ("installed", total))}


def _weights() -> dict[str, str]:
    """Return the networks that come with the package: for each name the path of the file, and its size."""
    shipped = sorted(PACKAGE.glob("weights/*.safetensors"))
    return {file.stem: f"{file} ({file.stat().st_size / 1e6:.1f} MB)" for file in shipped}


def describe_extra(extra: str) -> str:
    """Return the versions of the packages of an extra, or the command that installs it."""
    requirements = list(requirements_of(extra))
    missing = [requirement for requirement in requirements if not _is_satisfied(requirement)]
    if requirements and not missing:
        return ", ".join(f"{requirement.name} {_installed_version(requirement.name)}" for requirement in requirements)
    listed = ", ".join(f"{requirement.name}{requirement.specifier}" for requirement in missing)
    missing_text = f"; lacks {listed}" if len(missing) < len(requirements) else ""
    return f"absent: pip install 'braggshot[{extra}]' ({EXTRAS[extra]}{missing_text})"


def requirements_of(extra: str) -> Iterator[Requirement]:
    """Yield the packages that an optional part (extra) requires on this machine; for "", those that the program always requires."""
    try:
        requirements = map(Requirement, requires("braggshot") or ())
    except PackageNotFoundError:
        return
    for requirement in requirements:
        of_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if of_extra == bool(extra) and (requirement.marker is None or requirement.marker.evaluate({"extra": extra})):
            yield requirement


def _is_satisfied(requirement: Requirement) -> bool:
    """Tell whether a required package is installed in a fitting version."""
    installed = _installed_version(requirement.name)
    return installed is not None and requirement.specifier.contains(installed, prereleases=True)


def describe_requirement(requirement: Requirement) -> str:
    """Return the version of a required package, with the command that installs it if it is absent or too old."""
    installed = _installed_version(requirement.name)
    installed = installed or "absent"
    return installed if _is_satisfied(requirement) else f"{installed}: pip install '{requirement.name}{requirement.specifier}'"


def _installed_version(name: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _plugins() -> dict[str, str]:
    """Return the plug-ins (formats, sources, steps, strategies) that other packages add."""
    groups = ("braggshot.formats", "braggshot.sources", "braggshot.steps", "braggshot.strategies")
    return {
        f"{group.removeprefix('braggshot.')} {point.name}": point.value for group in groups for point in entry_points(group=group)
    }
