"""Compute strain from a reconstruction of another program: PyNX, cohere, cdiutils, or any CXI with the object in it.

The object does not tell the size of its voxels in metres; the raw scan does. So the scan is prepared on the grid of the object, and
the pattern of the object is correlated with the counts. The correlation tells by how many voxels the two programs cropped
differently, and whether the object belongs to another scan. It also tells the sign of the transform, because the conjugate object
scatters into the inverted pattern.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggshot import config as configuration
from braggshot.crystal_frame import strain_map
from braggshot.errors import DataError, FormatError
from braggshot.io import registry, results
from braggshot.io.results import cohere
from braggshot.output import check_writable, files_of
from braggshot.physics import metrics
from braggshot.physics.fourier import fourier
from braggshot.physics.geometry import direct_basis
from braggshot.pipeline import Settings, resolve, versions
from braggshot.prepare import prepare
from braggshot.prepare.window import raw_centre
from braggshot.volumes import ComplexArray, DiffractionVolume, FloatArray, Quality, Reconstruction, Scan

BELONGS = 0.6  # least correlation of an object's diffraction magnitudes with the measured ones if it belongs to the scan [1]
# Least gain in the correlation of the diffraction magnitudes with the measured ones for which an object is replaced by its complex
# conjugate [1].
CLEARLY = 0.02


def postprocess(
    path: str | Path,
    scan: Scan | str | Path | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    *,
    format: str | None = None,
    place: str | Path | None = None,
) -> Reconstruction:
    """Compute the strain map of an object on disk, from the scan that it explains.

    Parameters
    ----------
    path : result CXI (braggshot, PyNX, cdiutils' modes), a cohere results folder, or its ``image.npy``
    scan : the raw scan; may be left out for a result of braggshot, which keeps its geometry
    settings : settings as for `braggshot.reconstruct`; ``prepare.binning`` must be that of the object
    format : format of the scan, if its content does not tell
    place : file or folder that the result will be written to; checked before any work, so that no file that is read is replaced

    Raises
    ------
    FormatError : if the file holds no object.
    DataError : if the object does not explain the scan.
    GeometryError : if nothing says where the detector stood.
    OutputError : if nothing can be written to `place`, or a file that is read would be replaced.
    """
    began = time.perf_counter()
    resolved = settings if isinstance(settings, Settings) else resolve(settings or {})
    found = read_object(path)
    raw = scan if isinstance(scan, Scan) or scan is None else registry.read(scan, format, **resolved.input)
    if place is not None:
        name = found.volume.name if raw is None else raw.name
        check_writable(place, [path, *([] if raw is None else files_of(raw))], [name], resolved.output.formats)
    if raw is not None:
        found = matched(found, raw, resolved)
    read = time.perf_counter()
    strain = strain_map(found, resolved.strain)
    ended = time.perf_counter()
    return replace(
        found,
        configuration={
            "phased_with": dict(found.configuration),
            "postprocessed_with": {**configuration.dump(resolved), "program": {"name": "braggshot", **versions()}},
        },
        seconds={"read": read - began, "strain": ended - read, "total": ended - began},
        strain=strain,
    )


def read_object(path: str | Path) -> Reconstruction:
    """Read the object of a file or folder, and bring it to the order of axes and the sign of braggshot if the layout tells them.

    Raises
    ------
    FormatError : if there is no object.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".npy":
        return cohere.read(path)
    if not path.exists():
        raise FormatError(f"{path}: no such file or folder.")
    return results.read(path)


@dataclass(frozen=True)
class _Match:
    """Highest correlation of model and measured magnitudes, and the shift of the model at which it is reached [voxels]."""

    correlation: float
    shift: tuple[int, int, int]


def matched(found: Reconstruction, scan: Scan, settings: Settings) -> Reconstruction:
    """Bring the object and the scan onto one grid: move the window of the counts, and conjugate the object if that fits better.

    Raises
    ------
    DataError : if neither the object nor its conjugate explains the counts.
    """
    volume = prepare(scan, replace(settings.prepare, shape=found.rho.shape))
    magnitude = np.sqrt(np.maximum(volume.intensity, 0)) * volume.valid
    as_stored, conjugate = (_match(rho, magnitude) for rho in (found.rho, found.rho.conj()))
    turned = conjugate.correlation > as_stored.correlation + CLEARLY
    best = conjugate if turned else as_stored
    if best.correlation < BELONGS:
        raise DataError(
            f"the object does not explain the scan {scan.name}: its magnitudes correlate by {best.correlation:.2f} with the counts "
            f"(expected {BELONGS} or more); check the scan number and prepare.binning."
        )
    if any(best.shift) and volume.window is not None:
        # Where the model's pattern lies further on, the window must start earlier.
        centre = np.rint(raw_centre(volume.window, volume.shape) - np.array(best.shift) * volume.window.binning).astype(int)
        place = (int(centre[0]), int(centre[1]), int(centre[2]))
        volume = prepare(scan, replace(settings.prepare, shape=found.rho.shape, binning=volume.window.binning, centre=place))
    rho = found.rho.conj() if turned else found.rho
    sign = "conjugated, because the counts are explained so" if turned else "as the file's layout says"
    moved = f"the counts were cropped {best.shift} voxels apart from where the object was phased" if any(best.shift) else "none"
    return _measured(
        replace(
            found, choices={**found.choices, "sign_of_the_object": f"{sign}: correlation {best.correlation:.3f}", "crop": moved}
        ),
        rho,
        volume,
    )


def _match(rho: ComplexArray, magnitude: FloatArray) -> _Match:
    model = fourier(torch.from_numpy(np.ascontiguousarray(rho))).abs()
    measured = torch.from_numpy(np.ascontiguousarray(magnitude)).to(model.dtype)
    product = torch.fft.fftn(model) * torch.fft.fftn(measured).conj()
    grid = torch.fft.ifftn(product).real
    place = [int(index) for index in np.unravel_index(int(grid.argmax()), grid.shape)]
    z, y, x = (index - n if index > n // 2 else index for index, n in zip(place, grid.shape, strict=True))
    norm = torch.linalg.vector_norm(model) * torch.linalg.vector_norm(measured)
    return _Match(float(grid.max() / norm.clamp_min(1e-30)), (z, y, x))


def _measured(found: Reconstruction, rho: ComplexArray, volume: DiffractionVolume) -> Reconstruction:
    """Scale the object to the counts, and add its misfit and its voxel edges in metres."""
    inside = torch.from_numpy(np.where(found.support, rho, 0).astype(np.complex64))
    fit = metrics.misfit(fourier(inside).abs(), torch.from_numpy(volume.intensity), torch.from_numpy(volume.valid))
    basis = None if volume.reciprocal_basis is None else direct_basis(volume.reciprocal_basis, volume.shape)
    return replace(
        found,
        rho=(inside.numpy() * fit.scale).astype(np.complex64),
        volume=volume,
        quality=Quality(fit.chi2, fit.r_factor, found.quality.llk, found.quality.llk_free),
        basis=basis,
        frame="detector",
        uncertainty=None,
    )
