"""Write and read a strain map inside a CXI entry: one real image per field, and a group for the data common to all fields.

::

    entry_1/
      image_N/{title, data, z, y, x}, link <field> -> image_N       amplitude, phase, displacement, strain, d_spacing, support, ...
      strain_1/{frame, basis, rotation, q_bragg, iso_level, reflection, name, resolution, facets, lines, choices, numbers}
      strain_1/lines/line_N/{points, G_dot_b, confidence, is_closed, length}      dislocations, the longest first

The data of every image have the attributes ``frame`` and ``basis`` (columns are the voxel edges [m], components (z, y, x)), and
``long_name``, which says in words what they hold. Fields that have no value outside the crystal are NaN there. Strain is a pure
number, lengths are in metres. Only the axes by which viewers label a plot, z, y and x, are in nm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.io.chunks import read_region
from braggshot.io.hdf5 import add_group, get, link, put, put_tree, read_tree
from braggshot.volumes import Dislocation, Facet, FloatArray, StrainMap

# Fields of a strain map, and the units in which they are written.
UNITS = {
    "amplitude": "photons^0.5",
    "phase": "rad",
    "displacement": "m",
    "strain": "1",
    "d_spacing": "m",
    "lattice_parameter": "m",
    "displacement_sigma": "m",
    "strain_sigma": "1",
    "support": "1",
    "surface": "1",
    "bulk": "1",
    "dislocation": "1",
}
# What each image holds, in words.
_HOLDS = {
    "amplitude": "amplitude |rho|",
    "phase": "phase -q.u",
    "displacement": "displacement along q",
    "strain": "strain along q",
    "d_spacing": "lattice spacing along q",
    "lattice_parameter": "lattice parameter",
    "displacement_sigma": "standard deviation of the displacement",
    "strain_sigma": "standard deviation of the strain",
    "support": "inside of the crystal",
    "surface": "outermost voxels of the crystal",
    "bulk": "inside without the surface",
    "dislocation": "voxels at dislocations",
    "mode": "first mode of all starts",
    "rho": "complex object rho",
}
# Fields of a facet, and the units in which they are written.
_FACET_UNITS = {
    "normal": "1", "area": "m^2", "share": "1", "centre": "m", "strain": "1", "strain_std": "1", "hkl": "1", "off": "rad",
}  # fmt: skip


def add_image(
    entry: h5py.Group, key: str, array: NDArray[Any], units: str, basis: FloatArray | None = None, **attributes: Any
) -> h5py.Group:
    """Add the next ``image_N`` to an entry, with the link ``entry_1/<key>`` by which cdiutils finds it.

    Parameters
    ----------
    entry : the open group ``entry_1``
    key : name of the field: "amplitude", "displacement", "strain", ...
    array : values (z, y, x)
    units : as the UDUNITS library spells it; "1" for a pure number
    basis : columns are the voxel edges [m]; None without geometry
    attributes : stored with the data set, for example ``frame="crystal"``
    """
    number = 1 + sum(name.startswith("image_") for name in entry)
    image = add_group(entry, f"image_{number}", "NXdata")
    fill_image(image, key, array, units, basis, **attributes)
    link(entry, key, image)
    return image


def fill_image(
    image: h5py.Group, key: str, array: NDArray[Any], units: str, basis: FloatArray | None = None, **attributes: Any
) -> None:
    """Write title, data and axes of an image into an empty group; the parameters are those of `add_image`."""
    image.attrs.update(signal="data", interpretation="image")
    put(image, "title", key)
    put(image, "data", array, units, **attributes, **({} if basis is None else {"basis": basis}))
    describe(image, key, basis, str(attributes.get("frame", "detector")))


def describe(image: h5py.Group, key: str, basis: FloatArray | None, frame: str) -> None:
    """Say what an image holds, in words, and add its axes in nm, as NeXus asks; without geometry there are no axes.

    Along an axis of a skewed frame the distances are those along the edge of the voxels.
    """
    image["data"].attrs["long_name"] = f"{_HOLDS.get(key, key)}, {frame} frame"
    if basis is None:
        return
    names = ("z", "y", "x") if frame != "detector" else ("rocking", "row", "column")
    image.attrs["axes"] = names
    for axis, name in enumerate(names):
        size, edge = image["data"].shape[axis], float(np.linalg.norm(basis[:, axis])) * 1e9
        put(image, name, (np.arange(size) - size // 2) * edge, "nm", long_name=f"{name} [nm]")


def write(entry: h5py.Group, strain_map: StrainMap, numbers: Mapping[str, Any]) -> None:
    """Write all fields of a strain map into a CXI entry, and `numbers`, the table that summarises the map."""
    for name, units in UNITS.items():
        values = getattr(strain_map, name)
        if values is None:
            continue
        array = values.astype(np.int8 if values.dtype == bool else np.float32)
        sign = {"sign": "phase = -q.u"} if name == "phase" else {}
        add_image(entry, name, array, units, strain_map.basis, frame=strain_map.frame, **sign)
    group = add_group(entry, "strain_1", "NXcollection")
    for name, units in (("basis", "m"), ("rotation", "1"), ("q_bragg", "1/m"), ("iso_level", "photons^0.5")):
        put(group, name, getattr(strain_map, name), units)
    for name in ("frame", "name", "reflection"):
        put(group, name, getattr(strain_map, name))
    put_tree(add_group(group, "resolution", "NXcollection"), strain_map.resolution, "m")
    _write_facets(add_group(group, "facets", "NXcollection"), strain_map.facets)
    _write_lines(add_group(group, "lines", "NXcollection"), strain_map)
    put_tree(add_group(group, "choices", "NXcollection"), strain_map.choices)
    put_tree(add_group(group, "numbers", "NXcollection"), {key: value for key, value in numbers.items() if value is not None})


def read(entry: h5py.Group) -> StrainMap | None:
    """Read the strain map of a CXI entry; None if the entry holds no strain map."""
    if "strain_1" not in entry:
        return None
    group = entry["strain_1"]
    fields = {name: read_region(entry[name]["data"]) for name in UNITS if name in entry}
    masks = {name: fields[name] != 0 for name in ("support", "surface", "bulk", "dislocation")}
    reflection = get(group, "reflection")
    return StrainMap(
        **fields | masks,
        **{name: get(group, name) for name in ("basis", "rotation", "q_bragg", "iso_level", "frame", "name")},
        reflection=None if reflection is None else tuple(reflection.tolist()),
        resolution=read_tree(group["resolution"]),
        facets=_read_facets(group["facets"]),
        choices=read_tree(group["choices"]),
        lines=_read_lines(group["lines"]) if "lines" in group else (),
    )


def _write_lines(group: h5py.Group, strain_map: StrainMap) -> None:
    """Write the lines of dislocations; their points have components (z, y, x) of the map's frame, from its origin."""
    for number, line in enumerate(strain_map.lines, start=1):
        one = add_group(group, f"line_{number}", "NXcollection")
        put(one, "points", line.points, "m", components="z, y, x", frame=strain_map.frame)
        put(one, "G_dot_b", line.winding, "1")
        put(one, "confidence", line.confidence, "1")
        put(one, "is_closed", int(line.is_closed), "1")
        put(one, "length", line.length, "m")


def _read_lines(group: h5py.Group) -> tuple[Dislocation, ...]:
    found = []
    for number in range(1, len(group) + 1):
        line = group[f"line_{number}"]
        points = np.asarray(read_region(line["points"]), dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise FormatError(f"{line.file.filename}: {line.name}/points has shape {points.shape}, expected (n, 3).")
        numbers = [get(line, name) for name in ("is_closed", "G_dot_b", "confidence")]
        found.append(Dislocation(points, bool(numbers[0]), int(numbers[1]), float(numbers[2])))
    return tuple(found)


def _write_facets(group: h5py.Group, facets: tuple[Facet, ...]) -> None:
    """Write the properties of the facets, each an array of one row per facet; a facet without a name has hkl 0, 0, 0."""
    if not facets:
        return
    for name, units in _FACET_UNITS.items():
        values = [getattr(facet, name) for facet in facets]
        missing = (0, 0, 0) if name == "hkl" else np.nan
        put(group, name, np.array([missing if value is None else value for value in values]), units)


def _read_facets(group: h5py.Group) -> tuple[Facet, ...]:
    if not len(group):
        return ()
    rows = zip(*(np.asarray(read_region(group[name])).tolist() for name in _FACET_UNITS), strict=True)
    return tuple(
        Facet(
            np.array(normal),
            area,
            share,
            np.array(centre),
            strain,
            spread,
            tuple(hkl) if any(hkl) else None,
            None if off != off else off,
        )
        for normal, area, share, centre, strain, spread, hkl, off in rows
    )
