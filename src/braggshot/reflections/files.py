"""Write a tensor: CXI for programs, VTI for ParaView, a slide, and its numbers as JSON."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from braggshot.io.atomic import refuse_target, replacing, replacing_hdf5
from braggshot.io.hdf5 import add_group, link, put, put_tree
from braggshot.io.results import vtp
from braggshot.io.results.strain_images import add_image
from braggshot.io.results.vtk import write_arrays
from braggshot.reflections import burgers, tensor
from braggshot.reflections.record import Tensor
from braggshot.volumes import FloatArray

UNITS = {"displacement": "m", "strain": "1", "rotation": "rad"}


def write(folder: Path, found: Tensor, name: str = "tensor", force: bool = True) -> list[Path]:
    """Write a tensor into a folder; return the paths of what was written.

    Raises
    ------
    OutputError : if a file cannot be written, or would replace one that braggshot did not write and `force` is not given.
    """
    from braggshot.report.tensor import draw_tensor

    folder.mkdir(parents=True, exist_ok=True)
    targets = places(folder, found, name)
    for place in targets.values():
        refuse_target(place, force=force)
    write_cxi(targets["cxi"], found)
    write_vti(targets["vti"], found)
    if "sample" in targets:
        write_vti(targets["sample"], found.in_sample())
    if "vtp" in targets:
        write_vtp(targets["vtp"], found)
    draw_tensor(targets["png"], fields_of(found), found.crystal.voxel, lines_of(found))
    with replacing(targets["json"]) as temporary:
        temporary.write_text(json.dumps({"program": "braggshot", **summary(found)}, indent=1))
    return list(targets.values())


def places(folder: Path, found: Tensor, name: str = "tensor") -> dict[str, Path]:
    """List the files of a tensor; those along the sample's axes only where the crystal's are known."""
    lines = (folder / f"{name}.vtp").exists() or bool(found.dislocations)  # those of an earlier tensor must not stay
    targets = {kind: folder / f"{name}.{kind}" for kind in ("cxi", "vti", "png", "json", *(("vtp",) if lines else ()))}
    return {**targets, "sample": folder / f"{name}_sample.vti"} if found.axes == "crystal" else targets


def fields_of(found: Tensor) -> dict[str, FloatArray]:
    """List the six strains by name, (z, y, x) each [1]."""
    return {f"strain_{name}": values for name, values in zip(tensor.SIX, found.fields.strain, strict=True)}


def write_vti(path: Path, found: Tensor) -> None:
    """Write vectors and symmetric tensors on the grid; lengths in nm, NaN outside the crystal."""
    fields, support = found.fields, found.fields.support
    density = found.crystal.density / np.median(found.crystal.density[support])
    arrays: dict[str, tuple[Any, str]] = {
        "density": (density.astype(np.float32), "1"),
        "displacement": (_last(1e9 * fields.displacement[::-1]), "nm"),
        "strain": (_last(fields.strain), "1"),
        "rotation": (_last(fields.rotation), "rad"),
        "principal_strain": (_last(tensor.principal(fields.strain)), "1"),
        "von_mises": (tensor.von_mises(fields.strain).astype(np.float32), "1"),
        "support": (support.astype(np.uint8), "1"),
    }
    if found.sigma is not None:
        arrays["displacement_sigma"] = (_last(1e9 * found.sigma.displacement[::-1]), "nm")
        arrays["strain_sigma"] = (_last(found.sigma.strain), "1")
        arrays["rotation_sigma"] = (_last(found.sigma.rotation), "rad")
    write_arrays(path, arrays, found.basis, found.axes)


def write_vtp(path: Path, found: Tensor) -> None:
    """Write the lines of dislocations with their Burgers vectors, in nm along the axes of the tensor; NaN where it is open."""
    slips = found.dislocations
    open_ = np.full(3, np.nan)
    values: dict[str, Any] = {
        "burgers_nm": [open_ if one.vector is None else 1e9 * one.vector[::-1] for one in slips],
        "explained": [one.explained for one in slips],
        "length_nm": [1e9 * one.length for one in slips],
        "is_closed": [int(one.is_closed) for one in slips],
    }
    vtp.write_lines(path, [one.points for one in slips], values)


def _last(values: FloatArray) -> Any:
    return np.ascontiguousarray(np.moveaxis(values, 0, -1), dtype=np.float32)


def write_cxi(path: Path, found: Tensor) -> None:
    """Write all fields along the axes of the tensor, and the numbers of every reflection."""
    with replacing_hdf5(path) as file:
        file.attrs.update(default="entry_1", creator="braggshot", file_time=datetime.datetime.now(datetime.UTC).isoformat())
        put(file, "cxi_version", 150)
        entry = add_group(file, "entry_1", "NXentry", default="strain_xx")
        link(file, "entry_last", entry)
        basis, frame = found.basis, found.axes
        for key, values in fields_of(found).items():
            add_image(entry, key, values.astype(np.float32), "1", basis, frame=frame)
        add_image(entry, "density", found.crystal.density.astype(np.float32), "1", basis, frame=frame)
        add_image(entry, "support", found.fields.support.astype(np.int8), "1", basis, frame=frame)
        for kind, names in (("displacement", "zyx"), ("rotation", "xyz")):
            for axis, values in zip(names, getattr(found.fields, kind), strict=True):
                add_image(entry, f"{kind}_{axis}", values.astype(np.float32), UNITS[kind], basis, frame=frame)
        if found.sigma is not None:
            for kind, parts in (("displacement", tuple("zyx")), ("strain", tensor.SIX), ("rotation", tensor.THREE)):
                for part, values in zip(parts, getattr(found.sigma, kind), strict=True):
                    add_image(entry, f"{kind}_{part}_sigma", values.astype(np.float32), UNITS[kind], basis, frame=frame)
        numbers = add_group(entry, "tensor_1", "NXcollection")
        put(numbers, "crystal_to_sample", found.orientation.rotation, "1")
        put_tree(add_group(numbers, "results", "NXcollection"), _named(summary(found)))
        put_tree(add_group(numbers, "configuration", "NXcollection"), found.configuration)
        _write_slips(add_group(numbers, "dislocations", "NXcollection"), found)


def _write_slips(group: h5py.Group, found: Tensor) -> None:
    """Write lines and Burgers vectors; vectors have components (z, y, x) of the tensor's axes."""
    for number, slip in enumerate(found.dislocations, start=1):
        one = add_group(group, f"line_{number}", "NXcollection")
        put(one, "points", slip.points, "m", components="z, y, x", frame=found.axes)
        put(one, "burgers", slip.vector, "m", components="z, y, x", frame=found.axes)
        put(one, "angle_to_burgers", slip.angles, "rad")
        put_tree(one, _slip(slip))


def _slip(slip: burgers.Slip) -> dict[str, Any]:
    """Return the numbers of a dislocation."""
    known = {} if slip.indices is None else {"burgers_uvw": [float(part) for part in slip.indices], "explained": slip.explained}
    return {
        "said": burgers.sentence(slip),
        "length_m": slip.length,
        "is_closed": int(slip.is_closed),
        "g_dot_b": list(slip.turns),
        "agreed": list(slip.agreed),
        **known,
    }


def _named(table: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the list of reflections into a tree, one branch each, as HDF5 asks."""
    rows = {f"reflection_{number}": row for number, row in enumerate(table["reflections"], 1)}
    return {**{name: value for name, value in table.items() if name not in {"reflections", "dislocations"}}, **rows}


def summary(found: Tensor) -> dict[str, Any]:
    """Return the numbers of a tensor, in the SI units that their names end with."""
    inside = found.fields.support
    mean = found.mean_strain
    table: dict[str, Any] = {
        "verdict": found.verdict,
        "reasons": list(found.reasons),
        "axes": found.axes,
        "voxel_m": found.crystal.voxel,
        "volume_m3": float(inside.sum() * found.crystal.voxel**3),
        "cell_edges_m": list(found.orientation.cell.edges),
        "cell_angles_rad": list(found.orientation.cell.angles),
        "unexplained_phases": found.inconsistency,
        "strain_rms": {name: _rms(v) for name, v in zip(tensor.SIX, found.fields.strain, strict=True)},
        "displacement_rms_m": {name: _rms(v) for name, v in zip("zyx", found.fields.displacement, strict=True)},
        "seconds": dict(found.seconds),
        "reflections": [
            {
                "name": row.name,
                "hkl": list(row.hkl),
                "verdict": row.verdict,
                "chi2_alone": row.alone,
                "chi2_joint": row.misfit,
                "missed": row.missed if np.isfinite(row.missed) else None,
                "twin": row.twin,
                "shape_overlap": row.overlap,
                "off_deg": float(np.degrees(row.angle)),
            }
            for row in found.reflections
        ],
    }
    table["dislocations"] = [_slip(one) for one in found.dislocations]
    if mean is not None:
        table["mean_strain"] = dict(zip(tensor.SIX, map(float, mean), strict=True))
    if found.sigma is not None:
        table["strain_sigma"] = {name: _median(v[inside]) for name, v in zip(tensor.SIX, found.sigma.strain, strict=True)}
        table["displacement_sigma_m"] = {name: _median(v[inside]) for name, v in zip("zyx", found.sigma.displacement, strict=True)}
        table["sigma_source"] = found.sigma.source
    return table


def _rms(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else None


def _median(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def lines_of(found: Tensor) -> list[str]:
    """Say verdict, reasons and the main numbers in lines for a slide or a terminal."""
    lines = [f"{found.verdict}: {found.reasons[0]}", *found.reasons[1:]]
    for row in found.reflections:
        joined = "left out" if row.misfit is None else f"misfit {row.misfit**0.5:.3f} jointly, {row.alone**0.5:.3f} alone"
        hkl = " ".join(map(str, row.hkl))
        seen = f"predicted to {100 * row.missed:.0f} %" if np.isfinite(row.missed) else "not predicted: the others lie in a plane"
        lines.append(f"{row.name} ({hkl}): {row.verdict} alone; {joined}; {seen}")
    numbers = summary(found)
    if "strain_sigma" in numbers:
        known = [value for value in numbers["strain_sigma"].values() if value is not None]
        lengths = [value for value in numbers["displacement_sigma_m"].values() if value is not None]
        lines.append(
            f"one sigma, median: strain {max(known):.1e}, displacement {1e12 * max(lengths):.1f} pm ({numbers['sigma_source']})"
        )
    if found.mean_strain is not None:
        mean = ", ".join(f"{name} {1e4 * value:.1f}" for name, value in zip(tensor.SIX, found.mean_strain, strict=True))
        lines.append(f"mean lattice against the cell, in 10⁻⁴: {mean}")
    lines += [burgers.sentence(one) for one in found.dislocations[:3]]
    return lines
