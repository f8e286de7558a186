"""Join several reflections of one crystal: phase each, bring them together, fit all counts at once, and check the fit.

>>> import braggshot                                                          # doctest: +SKIP
>>> found = braggshot.tensor(["a.spec", "b.spec", "c.spec"],                   # doctest: +SKIP
...                          hkls=[(1, 1, 1), (-1, 1, 1), (2, 0, 0)], place="out/")
>>> found.verdict, found.fields.strain.shape                                  # doctest: +SKIP
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from braggshot import config
from braggshot.crystal_frame.resample import rotation_to_sample
from braggshot.crystal_frame.strain_map import unit_cell
from braggshot.errors import BraggshotError, DataError, GeometryError
from braggshot.io import registry, results
from braggshot.io.atomic import file_name
from braggshot.iterative.iterate import Progress
from braggshot.output import Result, check_writable, files_of, write
from braggshot.phasing.problem import prepare_measured
from braggshot.physics.fourier import to_centre
from braggshot.pipeline import drain, run
from braggshot.reflections import burgers, check, combine, files, joint, tensor
from braggshot.reflections.combine import Common, Single
from braggshot.reflections.joint import Crystal, Window
from braggshot.reflections.orientation import Hkl, Orientation, lattice_vectors, orient
from braggshot.reflections.record import Reflection, Tensor
from braggshot.reflections.settings import TensorSettings, resolve
from braggshot.volumes import BoolArray, FloatArray, Reconstruction, Scan

Source = Scan | Result | str | Path
_FILLED = 0.25  # share of the bulk's amplitude from which the region of the joint fit begins, before it grows by `_GROWN` [1]
_GROWN = 2  # layers of nodes about the single crystals in which the joint fit may find density
_CLEARLY = 0.9  # misfit of another choice of twins over that of the first, below which it is taken [1]
_NEAR, _COMPARED, _SHORT = 0.1, 3, 12  # choices of twins that are compared by their counts: how near the best, how many, steps


def join_reflections(
    sources: Sequence[Source],
    hkls: Sequence[Hkl] | None = None,
    settings: TensorSettings | Mapping[str, Any] | None = None,
    *,
    place: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> Tensor:
    """Find displacement vector, strain and rotation of a crystal from the scans of two or more of its reflections.

    Parameters
    ----------
    sources : scans or results of single reflections, or their paths
    hkls : Miller indices of each; None finds them from the cell (`strain.lattice`), |q| and the angles between the q's
    settings : nested settings as in a TOML file; of the stages of a reconstruction, and `tensor`
    place : folder for the tensor's files (`files.write`) and the single results; those there with the same settings are not phased
        again
    on_progress, say : called after each iteration of the phasing; called with a line for each step

    Raises
    ------
    BraggshotError : for every error that the user can cause; the message is one line.
    """
    known = settings if isinstance(settings, TensorSettings) else resolve(settings or {})
    if len(sources) < 2:
        raise GeometryError(f"a tensor needs two reflections of one crystal or more, found {len(sources)} scan.")
    began = time.perf_counter()
    found = [_single(source, known, place, on_progress, say) for source in sources]
    phased = time.perf_counter()
    names = _unique([one.volume.name for one in found])
    singles, oriented = orient_singles(found, names, hkls, known)
    say(f"oriented: hkl {', '.join(map(str, oriented.hkls))}, off by {np.degrees(oriented.angles.max()):.3f} degrees at most")
    seconds = {"phasing": phased - began}
    whole = fit_together(singles, oriented, known, seconds, say)
    if place is not None:
        files.write(Path(place), whole, force=known.output.force)
    return whole


def orient_singles(
    found: Sequence[Reconstruction], names: Sequence[str], hkls: Sequence[Hkl] | None, settings: TensorSettings
) -> tuple[list[Single], Orientation]:
    """Index and orient single crystals; with two, the axes are those of their plane: x along the first q, z across."""
    turns, lab = [], []
    for name, one in zip(names, found, strict=True):
        if not one.support.any():
            raise DataError(f"{name}: no crystal was found; phase this scan by itself first, or leave it out.")
        try:
            turns.append(rotation_to_sample(one.volume))
        except GeometryError as error:
            raise GeometryError(f"{name}: {error}") from None
        lab.append(combine.mean_lattice(one))
    qs = np.stack([turn @ q for turn, q in zip(turns, lab, strict=True)])
    cell = unit_cell(settings.strain) if settings.strain.lattice else None
    oriented = orient(qs, hkls, cell, names)
    axes = oriented.rotation.T if len(qs) > 2 else plane_axes(qs)
    made = zip(names, oriented.hkls, found, turns, qs, strict=True)
    return [Single(name, hkl, one, axes @ turn, axes @ q) for name, hkl, one, turn, q in made], oriented


def plane_axes(qs: FloatArray) -> NDArray[np.float64]:
    """Return the rotation to axes with x along the first vector, y in the plane of both, z across; components (z, y, x)."""
    x = qs[0] / np.linalg.norm(qs[0])
    y = qs[1] - (qs[1] @ x) * x
    y = y / np.linalg.norm(y)
    # A product of vectors listed as (z, y, x) is that of (x, y, z) listed so, but for its sign.
    return np.stack([-np.cross(x, y), y, x])


def fit_together(
    singles: Sequence[Single],
    oriented: Orientation,
    settings: TensorSettings,
    seconds: Mapping[str, float],
    say: Callable[[str], None] = lambda words: None,
) -> Tensor:
    """Fit single crystals together, check the fit, and return what was found."""
    began = time.perf_counter()
    names, qs = [one.name for one in singles], np.stack([one.q for one in singles])
    usable = _usable(singles)
    listed = combine.combinations(singles, usable)
    common, windows, start = _choose_twins(listed, singles, qs, usable, settings)
    share = f"; {100 * common.inconsistency:.0f} % of the phases disagree" if len(singles) > 3 else ""
    say(f"shapes overlap by {min(common.overlaps):.3f} or more{share}")
    found = joint.refine(windows, start, settings.tensor.iterations, settings.tensor.bend)
    say(f"joint fit: misfit {', '.join(f'{np.sqrt(one):.4f}' for one in found.misfits)}")
    fitted = time.perf_counter()
    fields = tensor.derive(found.displacement, tensor.material(found.density), found.voxel, found.region, found.base)
    steps = settings.tensor.check_iterations, settings.tensor.bend
    if not settings.tensor.checks:
        checks = check.Checks(tuple(check.missed_free(windows, found)))
    elif len(singles) > 3 and found.base is None:
        starts = _starts_without(common, qs, usable, start)
        checks = check.leave_each_out(windows, starts, found, fields, steps)
    else:
        checks = check.redraw_counts(windows, found, fields, steps, settings.phasing.seed)
    kept = list(range(len(singles)))
    if checks.stranger is not None:
        out, found = checks.stranger
        kept.remove(out)
        fields = tensor.derive(found.displacement, tensor.material(found.density), found.voxel, found.region, found.base)
    verdict, reasons = check.judge(checks, names, [one.found.verdict for one in singles], _shape_margin(listed, usable))
    rows = tuple(
        Reflection(one.name, one.hkl, one.q, one.found.verdict, one.found.quality.chi2, twin, overlap, float(angle), missed)
        for one, twin, overlap, angle, missed in zip(
            singles, common.twins, common.overlaps, oriented.angles, checks.missed, strict=True
        )
    )
    misfits = dict(zip(kept, found.misfits, strict=True))
    rows = tuple(replace(row, misfit=misfits.get(number)) for number, row in enumerate(rows))
    lasted = {**seconds, "joint": fitted - began, "checks": time.perf_counter() - fitted}
    if found.base is not None:
        verdict = "doubtful" if verdict == "good" else verdict
        reasons = (
            "a dislocation: u is the nearest continuous field, and no reflection was predicted from the others.",
            *reasons,
        )
    noted = (*reasons, *_notes(singles, oriented, usable))
    lasted["total"] = sum(lasted.values())
    mean = _mean_strain(singles, kept, found, fields, oriented)
    numbers = mean, common.inconsistency, lasted, config.dump(settings)
    slips = burgers.slips(common, usable, oriented.hkls, oriented.cell)
    whole = Tensor(rows, found, fields, checks.sigma, oriented, verdict, noted, *numbers, dislocations=slips)
    return whole.in_plane() if len(singles) == 2 else whole


def _mean_strain(
    singles: Sequence[Single], kept: Sequence[int], found: Crystal, fields: tensor.Fields, oriented: Orientation
) -> NDArray[np.float64] | None:
    """Fit the strain of the mean lattice against the cell; None for two reflections."""
    qs = []
    for ramp, number in zip(found.ramps, kept, strict=True):
        one = singles[number]
        q_window = one.rotation @ np.asarray(one.found.volume.q_bragg)
        qs.append(q_window + ramp - fields.gradient.T @ one.q)
    vectors = lattice_vectors([oriented.hkls[number] for number in kept], oriented.cell)
    return tensor.lattice_strain(np.stack(qs), vectors)


def _choose_twins(
    listed: Sequence[Common], singles: Sequence[Single], qs: FloatArray, usable: Sequence[bool], settings: TensorSettings
) -> tuple[Common, list[Window], Crystal]:
    """Choose the twins by shapes and phases, and between choices that are near each other by a short fit of the counts."""
    least = combine.disagreement(listed[0], usable)
    near = [one for one in listed if combine.disagreement(one, usable) < least + _NEAR][:_COMPARED]
    laid = [lay_out(singles, common, qs, usable, settings) for common in near]
    if len(near) == 1:
        return near[0], *laid[0]
    off = [sum(joint.refine(windows, start, _SHORT, settings.tensor.bend).misfits) for windows, start in laid]
    # Of a reflection with hardly a phase both twins fit alike, and its shape tells more than the counts.
    best = int(np.argmin(off)) if min(off) < _CLEARLY * off[0] else 0
    return near[best], *laid[best]


def lay_out(
    singles: Sequence[Single], common: Common, qs: FloatArray, usable: Sequence[bool], settings: TensorSettings
) -> tuple[list[Window], Crystal]:
    """Lay out the counts of each reflection, and the start of the joint fit: mean amplitude and shared displacement."""
    used = np.asarray(usable)
    amplitude = np.abs(common.fields[used]).mean(axis=0)
    region = ndimage.binary_dilation(amplitude > _FILLED, iterations=_GROWN)
    windows = windows_of(singles, region, common.voxel, settings)
    ramps = np.array([one.q - one.rotation @ np.asarray(one.found.volume.q_bragg) for one in singles])
    u = combine.shared_displacement(common.fields[used], qs[used], region)
    density = np.where(region, amplitude, 0.0)
    if used.all() and combine.slipped(common, usable):
        phasors = combine.shared_phasors(common.fields, qs, region)
        windows = [joint.with_base(window, one, region) for window, one in zip(windows, phasors, strict=True)]
        base = combine.shared_gradient(common.fields, qs, region, common.voxel), u
        return windows, Crystal(density, np.zeros((3, *region.shape)), ramps, region, common.voxel, base=base)
    return windows, Crystal(density, u, ramps, region, common.voxel)


def windows_of(singles: Sequence[Single], region: BoolArray, voxel: float, settings: TensorSettings) -> list[Window]:
    """Lay out the counts of each reflection over the nodes of a region; the held-out voxels are those of its own phasing."""
    windows = []
    for one in singles:
        measured = prepare_measured(one.found.volume, replace(settings.phasing, device="cpu"))
        free = torch.zeros(measured.valid.numel(), dtype=torch.bool)
        free[measured.free] = True
        free = free.reshape(measured.valid.shape)
        counts = (to_centre(measured.intensity), to_centre(measured.valid & ~free), to_centre(free))
        basis = one.rotation @ np.asarray(one.found.basis)
        windows.append(joint.make_window(one.name, counts, basis, one.q, region, voxel))
    return windows


def _starts_without(common: Common, qs: FloatArray, usable: Sequence[bool], start: Crystal) -> list[Crystal]:
    """Make, for each reflection, a start from the phases and amplitudes of the others alone."""
    found = []
    for out in range(len(qs)):
        kept = [number for number in range(len(qs)) if number != out and (usable[number] or sum(usable) < 3)]
        amplitude = np.abs(common.fields[kept]).mean(axis=0)
        u = combine.shared_displacement(common.fields[kept], qs[kept], start.region)
        found.append(replace(start, density=np.where(start.region, amplitude, 0.0), displacement=u))
    return found


def _usable(singles: Sequence[Single]) -> list[bool]:
    """Tell which reflections were found by themselves; all, if fewer than two were, or if these leave a direction out."""
    found = [one.found.verdict != "failed" for one in singles]
    units = np.stack([one.q / np.linalg.norm(one.q) for one in singles])
    full = np.linalg.matrix_rank(units, tol=0.1)
    kept = units[np.array(found)]
    return found if len(kept) and np.linalg.matrix_rank(kept, tol=0.1) == full else [True] * len(singles)


def _shape_margin(listed: Sequence[Common], usable: Sequence[bool]) -> float:
    """Return the least difference, over the reflections, between the overlaps of the shape and of its inversion."""
    first = list(usable).index(True)
    best = {}
    for number, twin in itertools.product(range(len(usable)), (False, True)):
        overlaps = [one.overlaps[number] for one in listed if one.twins[number] is twin]
        best[number, twin] = max(overlaps, default=0.0)
    margins = [abs(best[n, True] - best[n, False]) for n in range(len(usable)) if n != first and usable[n]]
    return min(margins, default=1.0)


def _notes(singles: Sequence[Single], oriented: Orientation, usable: Sequence[bool]) -> tuple[str, ...]:
    """Say in words what remains undetermined, and what the joint fit leaves out."""
    unused = [one.name for one, used in zip(singles, usable, strict=True) if not used]
    noted = [f"{', '.join(unused)}: not found alone, so only the counts were used, and not the phases."] if unused else []
    if oriented.rivals is not None:
        noted.append("hkl were found: the axes are known up to a rotation of the lattice onto itself.")
    if oriented.rivals:
        noted.append(f"{oriented.rivals} other sets of hkl, not related by symmetry, fit the angles as well: state hkl.")
    if len(singles) == 2:
        noted.append("two reflections: displacement and strain in their plane only; x lies along the first q, z across both.")
    blurred = [one.name for one in singles if one.found.psf is not None]
    if blurred:
        noted.append(f"the beam's point spread, seen in {', '.join(blurred)}, is not part of the joint fit.")
    return tuple(noted)


def _single(
    source: Source, settings: TensorSettings, place: str | Path | None, on_progress: Callable[[Progress], None] | None,
    say: Callable[[str], None],
) -> Reconstruction:  # fmt: skip
    """Return the crystal of one scan: given, found in the folder by an earlier run, or phased now."""
    if isinstance(source, Result):
        return source.reconstruction
    if not isinstance(source, Scan):
        if Path(source).suffix == ".cxi" and (known := _read_result(Path(source))) is not None:
            return known
        source = registry.read(source, **settings.input)
    kept = None if place is None else Path(place) / f"{file_name(source.name)}.cxi"
    if kept is not None and kept.exists():
        earlier = _read_result(kept)
        if earlier is not None and _settings_of(earlier.configuration) == _settings_of(config.dump(settings)):
            say(f"{source.name}: kept from {kept}")
            return earlier
    if kept is not None:
        check_writable(kept.parent, files_of(source), [source.name], ("cxi",), settings.output.force)
    found = drain(run(source, settings), on_progress)
    if kept is not None:
        write(found, kept)
    say(f"{source.name}: {found.verdict}; {found.reasons[0] if found.reasons else ''}")
    return found


def _read_result(path: Path) -> Reconstruction | None:
    """Read a result of braggshot; None where the file is none."""
    try:
        return results.read(path)
    except BraggshotError:
        return None


def _settings_of(configuration: Mapping[str, Any]) -> str:
    """Return the settings on which a single crystal depends, as a text that can be compared."""
    return json.dumps([configuration.get(table) for table in ("input", "prepare", "phasing")], sort_keys=True, default=str)


def _unique(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        found.append(next(n for n in (name, *(f"{name}-{k}" for k in range(2, len(names) + 2))) if n not in found))
    return found
