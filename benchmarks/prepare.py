"""Time and peak memory of preparation: a usual scan, and one far larger than memory should ever have to hold.

Frames are made when they are asked for: the pattern of a box-shaped crystal over a dim background, with some hot pixels. With
``BRAGGSHOT_DATA`` naming a folder that holds ``aps-34idc-scan54``, that measured scan is timed too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.prepare import PrepareConfig, prepare
from braggshot.volumes import Scan


class SyntheticFrames:
    """Counts of a crystal at the centre of (n, rows, columns), oversampled 4 times in the frames and 3 times in the pixels."""

    dtype = np.dtype(np.uint32)

    def __init__(self, shape: tuple[int, int, int], counts: float = 1e6) -> None:
        self.shape = shape
        self.counts = counts
        self.generator = np.random.default_rng(0)
        self.noise = self.generator.poisson(0.02, (shape[1] + 97, shape[2] + 89)).astype(np.uint32)
        self.hot = tuple(self.generator.integers(0, shape[1:], (20, 2)).T)
        self.profiles = [
            np.sinc((np.arange(size) - size // 2) / period).astype(np.float32) ** 2
            for size, period in zip(shape, (4, 3, 3), strict=True)
        ]

    def __getitem__(self, region: Any) -> NDArray[np.uint32]:
        frames, rows, columns = region
        z, y, x = (profile[part] for profile, part in zip(self.profiles, (frames, rows, columns), strict=True))
        plane = self.counts * y[:, None] * x
        bright = plane > 1
        images = np.stack([self._background(frame)[rows, columns].copy() for frame in range(self.shape[0])[frames]])
        for image, height in zip(images, z, strict=True):
            image[bright] += self.generator.poisson(height * plane[bright]).astype(np.uint32)
        return images

    def _background(self, frame: int) -> NDArray[np.uint32]:
        row, column = 31 * frame % 97, 17 * frame % 89
        image = self.noise[row : row + self.shape[1], column : column + self.shape[2]].copy()
        image[self.hot] = 5000
        return image


class Prepare:
    """From raw frames to a volume that can be phased."""

    params = [[(200, 256, 256), (2000, 1000, 1000)]]  # noqa: RUF012  # asv wants plain lists
    param_names = ["shape"]  # noqa: RUF012
    timeout = 600
    number = repeat = 1

    def setup(self, shape: tuple[int, int, int]) -> None:
        self.scan = Scan(SyntheticFrames(shape), "synthetic")

    def time_survey_and_cut(self, shape: tuple[int, int, int]) -> None:
        prepare(self.scan)

    def peakmem_survey_and_cut(self, shape: tuple[int, int, int]) -> None:
        prepare(self.scan)

    def time_known_peak(self, shape: tuple[int, int, int]) -> None:
        self.known(shape)

    def peakmem_known_peak(self, shape: tuple[int, int, int]) -> None:
        self.known(shape)

    def known(self, shape: tuple[int, int, int]) -> None:
        centre = (shape[0] // 2, shape[1] // 2, shape[2] // 2)
        prepare(self.scan, PrepareConfig(centre=centre, shape=(128, 128, 128), binning=(1, 1, 1)))


class PrepareMeasured:
    """Scan 54 of APS 34-ID-C, from TIFF files."""

    def setup(self) -> None:
        folder = Path(os.environ.get("BRAGGSHOT_DATA", "")) / "aps-34idc-scan54"
        if not folder.is_dir():
            raise NotImplementedError("set BRAGGSHOT_DATA to the folder that holds aps-34idc-scan54")
        from braggshot.io.beamlines import aps_34idc

        self.scan = aps_34idc.read(folder / "example.spec", scan=54, dark=folder / "dark.tif", flat=folder / "whitefield.tif")

    def time_scan54(self) -> None:
        prepare(self.scan)

    def peakmem_scan54(self) -> None:
        prepare(self.scan)
