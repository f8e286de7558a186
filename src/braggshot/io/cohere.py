r"""A folder from which cohere continues or post-processes a reconstruction.

::

    <folder>/phasing_data/data.tif           sqrt(intensity)
    <folder>/results_phasing/image.npy       the object
    <folder>/results_phasing/support.npy     1 inside

cohere differs from braggshot in four ways, all undone here. Its arrays are (column, row, frame), and it transposes TIFFs when it
reads them. Its object goes to the detector by the *inverse* transform, unscaled: :math:`|\mathrm{ifftn}(image)| \prod N = data`, so
its object is the conjugate of ours. It stores magnitudes, not photons. It has no mask, so voxels that are not valid read as zero.

Continue with ``init_guess = "continue"`` and ``continue_dir = "<folder>/results_phasing"``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from braggshot.io.atomic import replacing
from braggshot.volumes import Reconstruction


def export(folder: str | Path, reconstruction: Reconstruction) -> None:
    """Write the three files above.

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
