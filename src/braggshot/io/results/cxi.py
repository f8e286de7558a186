"""Write and read the result CXI: one HDF5 file that holds the crystal, its measurement, and the settings of the phasing.

The layout is that of PyNX, so that PyNX, cdiutils, silx and h5web open the file. Data without a place in PyNX's layout have names
of their own::

    entry_last -> entry_1
    entry_1/
      strain -> image_N                       shown first by a viewer, with its axes in nm; without a strain map amplitude
      data_1/data -> image_1/data             the object, where PyNX looks for it
      image_1/{data, mask, basis, frame}      rho on the grid of the measurement, centred; mask is the support
      image_1/process_1/{program, version, configuration, note_1, results}
      image_2, image_3, ...                   further arrays, each with a link that names it: entry_1/amplitude, phase, support;
                                              with a strain map these are in the frame of the map, as are displacement, strain, ...
      mode/data                               first PCA mode of all starts, complex, on the grid of image_1
      strain_1                                common data of the strain map; see `braggshot.io.results.strain_images`
      instrument_1/detector_1/{data, mask}    prepared counts; mask 0 good, 1 bad
      completed_1/data                        prepared counts, with the calculated intensity of the crystal where the mask is 1
      instrument_1/geometry_1                 diffractometer circles, where known

Arrays are (z, y, x); every data set has ``units`` ("1" for a pure number, "" for text). Axes, signs and frames are defined in
`braggshot.volumes`.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import explain_damage
from braggshot.io.atomic import replacing_hdf5
from braggshot.io.chunks import read_region
from braggshot.io.files import dataset, find_node, open_hdf5
from braggshot.io.hdf5 import add_group, get, link, put, put_note, put_tree, read_note, read_tree
from braggshot.io.measurement import read_geometry, read_preparation, write_measurement
from braggshot.io.results import strain_images
from braggshot.io.results.strain_images import add_image, describe, fill_image
from braggshot.physics.forward import PointSpread, fill_gaps
from braggshot.physics.strain import summary_table
from braggshot.volumes import Agreement, ComplexArray, DiffractionVolume, Ensemble, Quality, Reconstruction, StrainMap, Uncertainty

_VERSION = importlib.metadata.version("braggshot")


def write(path: str | Path, reconstruction: Reconstruction) -> None:
    """Write a reconstruction, and its strain map if it has one, as a result CXI; if writing fails, an older file stays.

    Raises
    ------
    OutputError : if the file cannot be written.
    """
    with replacing_hdf5(path) as file:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.attrs.update(default="entry_1", creator="braggshot", file_time=now, h5py_version=h5py.__version__)
        put(file, "cxi_version", 150)
        entry = add_group(file, "entry_1", "NXentry", default="amplitude" if reconstruction.strain is None else "strain")
        link(file, "entry_last", entry)
        put(entry, "title", reconstruction.volume.name)
        put(entry, "program_name", f"braggshot {_VERSION}")
        put(entry, "start_time", now)
        write_measurement(add_group(entry, "instrument_1", "NXinstrument"), reconstruction.volume)
        _write_object(entry, reconstruction)
        if reconstruction.frame == "detector":
            _write_completed(add_group(entry, "completed_1", "NXdata", signal="data", interpretation="image"), reconstruction)
        if reconstruction.strain is None:
            _add_images(entry, reconstruction)
        else:
            strain_images.write(entry, reconstruction.strain, summary_table(reconstruction.strain))
        if reconstruction.ensemble is not None and reconstruction.ensemble.mode is not None:
            mode = reconstruction.ensemble.mode.astype(np.complex64)
            shared = add_group(entry, "mode", "NXdata")  # no image_N: NeXus has images in general as real numbers
            fill_image(shared, "mode", mode, "photons^0.5", reconstruction.basis, frame=reconstruction.frame)
        data = add_group(entry, "data_1", "NXdata", signal="data", interpretation="image")
        for name in ("data", *entry["image_1"].attrs.get("axes", ())):
            link(data, name, entry["image_1"][name])
        data.attrs.update({name: value for name, value in entry["image_1"].attrs.items() if name == "axes"})


def _write_completed(group: h5py.Group, reconstruction: Reconstruction) -> None:
    volume, spread = reconstruction.volume, reconstruction.psf
    psf = None if spread is None else PointSpread(tuple(spread["sigma"]), float(spread["eta"]))
    counts, valid = (torch.from_numpy(np.ascontiguousarray(array)) for array in (volume.intensity, volume.valid))
    put(group, "data", fill_gaps(counts, valid, torch.from_numpy(reconstruction.rho), psf).numpy().astype(np.float32), "counts")
    group.attrs["description"] = "measured where the mask is 0, the model where it is 1"


def _write_object(entry: h5py.Group, reconstruction: Reconstruction) -> None:
    image = add_group(entry, "image_1", "NXdata", signal="data", interpretation="image")
    put(image, "title", "rho")
    put(image, "data", reconstruction.rho.astype(np.complex64), "photons^0.5")
    describe(image, "rho", reconstruction.basis, reconstruction.frame)
    put(image, "mask", reconstruction.support.astype(np.int8))
    link(image, "support", image["mask"])
    put(image, "data_type", "electron density")
    put(image, "data_space", "real")
    put(image, "is_fft_shifted", 0)
    put(image, "frame", reconstruction.frame)
    put(image, "basis", reconstruction.basis, "m")
    if reconstruction.uncertainty is not None:
        spread = add_group(image, "uncertainty_1", "NXcollection")
        units = {"phase": "rad", "strain": "1", "amplitude": "1", "samples": "1", "source": None, "deviations": "rad"}
        units["slope_factor"] = "1"
        for name, unit in units.items():
            put(spread, name, getattr(reconstruction.uncertainty, name), unit)
    _write_process(add_group(image, "process_1", "NXprocess"), reconstruction)


def _add_images(entry: h5py.Group, reconstruction: Reconstruction) -> None:
    rho, support, basis, frame = reconstruction.rho, reconstruction.support, reconstruction.basis, reconstruction.frame
    add_image(entry, "amplitude", np.abs(rho).astype(np.float32), "photons^0.5", basis, frame=frame)
    phase = np.where(support, np.angle(rho), 0).astype(np.float32)
    add_image(entry, "phase", phase, "rad", basis, frame=frame, sign="phase = -q.u")
    add_image(entry, "support", support.astype(np.int8), "1", basis, frame=frame)


def _write_process(process: h5py.Group, reconstruction: Reconstruction) -> None:
    put(process, "program", "braggshot")
    put(process, "version", _VERSION)
    put(process, "algorithm", reconstruction.method)
    put(process, "network", reconstruction.network)
    put_tree(add_group(process, "configuration", "NXcollection"), reconstruction.configuration)
    put_note(process, "note_1", reconstruction.configuration, "configuration parameters used for phasing")
    results = add_group(process, "results", "NXcollection")
    quality = reconstruction.quality
    for name in ("chi2", "r_factor", "llk", "llk_free", "agreement", "chi2_coherent", "unseen"):
        put(results, name, getattr(quality, name))
    if quality.agreeing is not None:
        put_tree(add_group(results, "agreeing", "NXcollection"), dataclasses.asdict(quality.agreeing))
    for pynx_name, value in (("llk_poisson", quality.llk), ("free_llk_poisson", quality.llk_free)):
        put(results, pynx_name, value)
    put(results, "nb_point_support", int(reconstruction.support.sum()))
    put(results, "resolution", quality.resolution, "m")
    put(results, "verdict", reconstruction.verdict)
    put(results, "reasons", reconstruction.reasons)
    put_tree(add_group(results, "choices", "NXcollection"), reconstruction.choices)
    put_tree(add_group(results, "seconds", "NXcollection"), reconstruction.seconds, "s")
    put_tree(add_group(results, "history", "NXcollection"), reconstruction.history)
    if reconstruction.psf is not None:
        put_tree(add_group(results, "point_spread", "NXcollection"), reconstruction.psf)
    if reconstruction.ensemble is not None:
        put(results, "mode_shares", reconstruction.ensemble.mode_weights)  # NeXus keeps the ending "_weights" for something else
        put(results, "prtf", reconstruction.ensemble.prtf)
        put(results, "fsc", reconstruction.ensemble.fsc)
        put(results, "fsc_between", reconstruction.ensemble.fsc_between)
        with_geometry = reconstruction.volume.reciprocal_basis is not None
        put(results, "prtf_frequency", reconstruction.ensemble.prtf_frequency, "1/m" if with_geometry else "1")
        put_tree(add_group(results, "table", "NXcollection"), reconstruction.ensemble.table)


def read(path: str | Path) -> Reconstruction:
    """Read a result CXI of braggshot or PyNX.

    PyNX crops the object to its support and keeps no counts. Such an object is padded to the grid that was phased, and zeros,
    marked as not valid, are returned as the counts.

    Raises
    ------
    FormatError : if the file is no HDF5 file, is cut short, or holds no reconstruction.
    """
    with explain_damage(path, "a result CXI"), open_hdf5(path) as file:
        entry = find_node(file, "entry_last") or find_node(file, "entry_1")
        data = find_node(entry, "image_1/data") if isinstance(entry, h5py.Group) else None
        if not isinstance(data, h5py.Dataset) or data.dtype.kind != "c":
            raise FormatError(
                f"{path} holds no reconstruction (entry_1/image_1/data); make one with `braggshot reconstruct {path} -o OUT`."
            )
        found = _read_entry(entry, Path(path))
        _refuse_misfits(found, path)
        return found


def read_strain(path: str | Path) -> StrainMap | None:
    """Read the strain map of a result CXI of braggshot; None if the file holds no strain map.

    Raises
    ------
    FormatError : if the file is no HDF5 file or is cut short.
    """
    with explain_damage(path, "a strain map"), open_hdf5(path) as file:
        return strain_images.read(find_node(file, "entry_last") or find_node(file, "entry_1") or {})


def _read_entry(entry: h5py.Group, path: Path) -> Reconstruction:
    image = entry["image_1"]
    process = find_node(image, "process_1") or {}
    volume = _read_measurement(entry, process, path)
    program = get(process, "program", "an unknown program")
    own = program == "braggshot"
    results = read_tree(process.get("results", {}))
    return Reconstruction(
        rho=_read_centred(image, "data", volume.shape, path).astype(np.complex64),
        support=_read_centred(image, next(name for name in ("mask", "support", "data") if name in image), volume.shape, path) != 0,
        volume=volume,
        quality=_quality(results),
        frame=get(image, "frame", "detector"),
        basis=get(image, "basis"),
        ensemble=_read_ensemble(results, get(entry, "mode/data")),
        verdict=results.get("verdict", "not judged"),
        reasons=tuple(results.get("reasons", (f"phased by {program}, not judged by braggshot",))),
        history=results.get("history", {}),
        method=get(process, "algorithm", "iterative") if own else program,
        network=get(process, "network"),
        configuration=read_note(process, "note_1") if own else read_tree(process.get("configuration", {})),
        choices=results.get("choices", {}),
        psf=_tuples(results.get("point_spread")),
        seconds=results.get("seconds", {}),
        uncertainty=_read_uncertainty(image),
        strain=strain_images.read(entry),
    )


def _read_ensemble(results: dict[str, Any], mode: ComplexArray | None) -> Ensemble | None:
    """Read the statistics of all starts of the phase retrieval; fields that the file does not have keep their default."""
    if "prtf" not in results:
        return None
    known = {**({"mode_weights": results["mode_shares"]} if "mode_shares" in results else {}), **results}  # the older name, too
    stored = {field.name: known[field.name] for field in dataclasses.fields(Ensemble) if field.name in known}
    return Ensemble(**stored, mode=mode)


def _read_uncertainty(image: h5py.Group) -> Uncertainty | None:
    if "uncertainty_1" not in image:
        return None
    group = image["uncertainty_1"]
    stored = {field.name: get(group, field.name) for field in dataclasses.fields(Uncertainty)}
    stored["slope_factor"] = 1.0 if stored["slope_factor"] is None else float(stored["slope_factor"])  # older files have none
    return Uncertainty(**stored)


def _read_centred(image: h5py.Group, name: str, shape: tuple[int, ...], path: Path) -> NDArray[Any]:
    """Read an array of the group `image_1` and pad it with zeros on all sides to `shape`.

    If the array holds several modes, the first mode is taken.
    """
    data = dataset(image, name)
    if data.ndim not in {3, 4}:
        raise FormatError(f"{path}: {data.name} has shape {data.shape}, expected an object of three axes.")
    stored = read_region(data, (0, *[slice(None)] * 3) if data.ndim == 4 else ())
    if get(image, "is_fft_shifted", 0):
        stored = np.fft.fftshift(stored)
    if any(n > size for n, size in zip(stored.shape, shape, strict=True)):
        raise FormatError(
            f"{path}: {name} has shape {stored.shape}, larger than the measured volume {shape}; it cannot be its object."
        )
    whole = np.zeros(shape, stored.dtype)
    whole[tuple(slice(size // 2 - n // 2, size // 2 - n // 2 + n) for n, size in zip(stored.shape, shape, strict=True))] = stored
    return whole


def _refuse_misfits(found: Reconstruction, path: str | Path) -> None:
    """Refuse a result whose parts have other shapes than its object, or are no texts where texts are expected."""
    shape, volume, strain = found.rho.shape, found.volume, found.strain
    if strain is not None and any(getattr(strain, name) is not None for name in strain_images.UNITS):
        fields = {name: array for name in strain_images.UNITS if (array := getattr(strain, name)) is not None}
        if strain.amplitude.ndim != 3 or {array.shape for array in fields.values()} != {strain.amplitude.shape}:
            raise FormatError(f"{path}: the images of the strain map have different shapes, expected one shape of three axes.")
    if {found.support.shape, volume.intensity.shape, volume.valid.shape} != {shape}:
        raise FormatError(f"{path}: object, support, counts and mask have different shapes, expected {shape} for all.")
    sizes = [(found.basis, (3, 3)), (volume.reciprocal_basis, (3, 3)), (volume.q_bragg, (3,))]
    if any(array is not None and (np.shape(array) != size or np.asarray(array).dtype.kind not in "fiu") for array, size in sizes):
        raise FormatError(f"{path}: a basis or q_bragg is no array of the shape that was expected (3 x 3 or 3 numbers).")
    texts = {"frame": found.frame, "verdict": found.verdict, "algorithm": found.method, "title": volume.name}
    texts |= {} if found.network is None else {"network": found.network}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise FormatError(f"{path}: {name} is a {type(text).__name__}, expected a text.")


def _quality(results: dict[str, Any]) -> Quality:
    def number(name: str, default: float | None = None) -> Any:
        return default if results.get(name) is None else float(results[name])

    return Quality(
        chi2=number("chi2", np.nan),
        r_factor=number("r_factor", np.nan),
        llk=number("llk_poisson", np.nan),
        llk_free=number("free_llk_poisson", np.nan),
        agreement=tuple(np.atleast_1d(results.get("agreement", ())).astype(float).tolist()),
        resolution=number("resolution"),
        chi2_coherent=number("chi2_coherent"),
        unseen=number("unseen"),
        agreeing=Agreement(**results["agreeing"]) if "agreeing" in results else None,
    )


def _read_measurement(entry: h5py.Group, process: Any, path: Path) -> DiffractionVolume:
    detector = find_node(entry, "instrument_1/detector_1")
    name = get(entry, "title", path.stem)
    if not isinstance(detector, h5py.Group) or "data" not in detector:
        shape = tuple(get(process, "configuration/iobs_shape", entry["image_1/data"].shape[-3:]))
        return DiffractionVolume(np.zeros(shape, np.float32), np.zeros(shape, bool), name)
    intensity = read_region(dataset(detector, "data"))
    return DiffractionVolume(
        intensity=intensity,
        valid=read_region(dataset(detector, "mask")) == 0 if "mask" in detector else np.ones(intensity.shape, bool),
        name=name,
        geometry=read_geometry(entry["instrument_1"]),
        **read_preparation(detector),
    )


def _tuples(values: dict[str, Any] | None) -> Any:
    """Return a copy of settings read from HDF5 in which arrays are tuples, as before writing; HDF5 stores a tuple as an array."""
    return values and {key: tuple(value.tolist()) if isinstance(value, np.ndarray) else value for key, value in values.items()}
