r"""Write a folder from which cohere continues or post-processes a reconstruction, and read objects of cohere.

::

    <folder>/phasing_data/data.tif           sqrt(intensity)
    <folder>/results_phasing/image.npy       the object
    <folder>/results_phasing/support.npy     1 inside

cohere differs from braggshot in four ways; writing and reading convert all of them. Its arrays are (column, row, frame), and it
transposes TIFFs when it reads them. It computes the magnitudes from the object by the *inverse* Fourier transform, unscaled:
:math:`|\mathrm{ifftn}(image)| \prod N = data`, where image is the object, data are the magnitudes, and N are the numbers of voxels
along the axes. So the object of cohere is the conjugate of the object of braggshot. cohere stores magnitudes, the square roots of
photons. It has no mask, so voxels that are not valid become zero.

To continue, set ``init_guess = "continue"`` and ``continue_dir = "<folder>/results_phasing"``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.gate import refuse_oversized
from braggshot.io.atomic import replacing
from braggshot.io.files import read_array, read_npy
from braggshot.volumes import DiffractionVolume, Quality, Reconstruction

FILES = ("phasing_data/data.tif", "results_phasing/image.npy", "results_phasing/support.npy")


def export(folder: str | Path, reconstruction: Reconstruction) -> None:
    """Write magnitudes, object and support of a reconstruction into the folders where cohere looks for them.

    Raises
    ------
    OutputError : if a file cannot be written.
    """
    folder = Path(folder)
    image = reconstruction.rho.conj().transpose(2, 1, 0) / np.sqrt(reconstruction.rho.size)
    magnitude = np.sqrt(np.maximum(reconstruction.volume.intensity, 0)).astype(np.float32)
    # cohere brings the peak to the corner by fftshift, which on an odd axis is one voxel off; so the peak is put where that works.
    magnitude = np.fft.ifftshift(np.fft.ifftshift(magnitude))
    with replacing(folder / "phasing_data" / "data.tif") as temporary:
        tifffile.imwrite(temporary, magnitude)
    with replacing(folder / "results_phasing" / "image.npy") as temporary:
        np.save(temporary, image.astype(np.complex64))
    with replacing(folder / "results_phasing" / "support.npy") as temporary:
        np.save(temporary, reconstruction.support.transpose(2, 1, 0).astype(np.float32))


def read(path: str | Path) -> Reconstruction:
    """Read an object that the program cohere phased, and convert its axes, sign and scale to those of braggshot.

    The counts are those of ``phasing_data/data.tif`` beside the results. Where there is no such file, or one of another shape, all
    counts are zero and marked as not valid. cohere keeps no mask, so what it left out counts as measured zeros.

    Parameters
    ----------
    path : ``image.npy``, or a folder that holds it directly or in ``results_phasing``; ``support.npy`` is read from the same folder

    Raises
    ------
    FormatError : if there is no complex 3D array.
    """
    path = Path(path)
    places = [path / "image.npy", path / "results_phasing" / "image.npy"] if path.is_dir() else [path]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise FormatError(f"{path} holds no image.npy; give a results folder of cohere or the file itself.")
    image = _load(file)
    if image.ndim != 3 or image.dtype.kind != "c":
        raise FormatError(f"{file}: expected a complex 3D object, found {image.dtype} of shape {image.shape}.")
    rho = np.ascontiguousarray(image.transpose(2, 1, 0).conj() * np.sqrt(image.size)).astype(np.complex64)
    mask = file.with_name("support.npy")
    support = np.ascontiguousarray(_load(mask).transpose(2, 1, 0)) > 0.5 if mask.is_file() else rho != 0
    volume = _read_counts(file, rho.shape)
    unknown = Quality(np.nan, np.nan, np.nan, np.nan)
    return Reconstruction(
        rho, support, volume, unknown, method="cohere", reasons=("phased by cohere, not judged by braggshot",),
        choices={"sign": "conjugate of cohere's, so phase = -q.u"},
    )  # fmt: skip


def _read_counts(image: Path, shape: tuple[int, ...]) -> DiffractionVolume:
    """Read the magnitudes that an object was phased from, and square them; nothing is valid where there are none of its shape."""
    folder = next((up for up in list(image.absolute().parents)[:3] if (up / "phasing_data" / "data.tif").is_file()), None)
    name = image.parent.name or image.stem
    if folder is not None:
        stored, name = read_array(folder / "phasing_data" / "data.tif"), folder.name or name
        if stored.shape == shape:
            counts = np.fft.fftshift(np.fft.fftshift(stored.astype(np.float32))) ** 2  # the inverse of what `export` does
            steps = ("read from cohere's data.tif, which keeps no mask: what was left out counts as measured zeros",)
            return DiffractionVolume(counts, np.ones(shape, bool), name, steps=steps)
    return DiffractionVolume(np.zeros(shape, np.float32), np.zeros(shape, bool), name)


def _load(path: Path) -> NDArray[Any]:
    array = read_npy(path)
    refuse_oversized(path, array.nbytes)
    return np.array(array)
