"""Use a dark image, a flat field and a mask that the user gives by hand, in place of those of the source or of an example scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import DataError
from braggshot.io.files import read_array
from braggshot.volumes import Scan

WORDS = {"dark": "dark field", "flat": "flat field", "valid": "mask"}
"""Field of a `Scan` that an image replaces -> what the image is called."""


@dataclass(frozen=True)
class GivenImage:
    """An image that the user gives.

    Parameters
    ----------
    field : the field of a `Scan` that it replaces, a key of `WORDS`
    path : the file that it was read from
    values : (rows, columns); for `valid`, True on good pixels
    """

    field: str
    path: Path
    values: NDArray[Any]


def read_images(dark: str | Path | None, flat: str | Path | None, mask: str | Path | None) -> tuple[GivenImage, ...]:
    """Read the given images from .npy, .npz or TIFF files; a mask is 0 on good pixels, as in all files.

    Raises
    ------
    FormatError : if a file cannot be read.
    DataError : if a file does not hold one image.
    """
    given = []
    for field, path in (("dark", dark), ("flat", flat), ("valid", mask)):
        if path is None:
            continue
        values = np.squeeze(read_array(path, "mask" if field == "valid" else field, "data"))
        if values.ndim != 2:
            raise DataError(f"{path}: expected one image (rows, columns), found shape {values.shape}.")
        given.append(GivenImage(field, Path(path), values == 0 if field == "valid" else values.astype(float)))
    return tuple(given)


def fit_image(image: GivenImage, shape: tuple[int, int], provenance: Mapping[str, Any]) -> NDArray[Any]:
    """Return a given image in the shape of the frames; an image of the whole chip is cut to the region that the frames show.

    Raises
    ------
    DataError : if the image does not fit the frames.
    """
    if image.values.shape == shape:
        return image.values
    if "region" in provenance:
        cut = image.values[tuple(slice(*ends) for ends in provenance["region"])]
        if cut.shape == shape:
            return np.asarray(cut)
    raise DataError(
        f"{image.path}: the {WORDS[image.field]} has shape {image.values.shape}, the frames {shape}; "
        "cut it to the same region of the detector."
    )


def refuse_unfit(images: tuple[GivenImage, ...], scan: Scan | None) -> None:
    """Refuse images that do not fit a scan that is known before frames come.

    Raises
    ------
    DataError : if an image has another shape than the frames, or would correct counts that are corrected already.
    """
    if scan is None:
        return
    _, rows, columns = scan.frames.shape
    for image in images:
        fit_image(image, (rows, columns), scan.provenance)
        if scan.prepared and image.field != "valid":
            raise DataError(f"{image.path}: the counts of {scan.name} are corrected already; leave --{image.field} out.")
