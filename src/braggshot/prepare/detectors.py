"""Find the gaps between the modules of known detectors: rows and columns without trusted counts.

Modules are tiled at a regular pitch. So the gaps follow from the sizes of the detector, of a module and of a gap, in pixels (rows,
columns). Medipix-type chips have wide pixels along their edges, which collect more photons; these pixels count as part of the gap.
A detector that is not in `DETECTORS` is looked up in pyFAI, if pyFAI is installed.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from braggshot.errors import ConfigError
from braggshot.volumes import BoolArray

Pair = tuple[int, int]

# Detector name -> its possible layouts, each (shape of a frame, of a module, of a gap), every shape as (rows, columns) [pixels].
DETECTORS: dict[str, tuple[tuple[Pair, Pair, Pair], ...]] = {
    "maxipix": (((516, 516), (255, 255), (6, 6)), ((256, 256), (256, 256), (0, 0))),
    "merlin": (((515, 515), (255, 255), (5, 5)), ((256, 256), (256, 256), (0, 0))),
    "timepix": (((516, 516), (255, 255), (6, 6)), ((518, 518), (255, 255), (8, 8)), ((256, 256), (256, 256), (0, 0))),
    "lambda250k": (((516, 516), (255, 255), (6, 6)),),
    "lambda750k": (((516, 1556), (256, 256), (4, 4)),),
    "eiger500k": (((514, 1030), (514, 1030), (37, 10)),),
    "eiger1m": (((1065, 1030), (514, 1030), (37, 10)),),
    "eiger4m": (((2167, 2070), (514, 1030), (37, 10)),),
    "eiger9m": (((3269, 3110), (514, 1030), (37, 10)),),
    "eiger16m": (((4371, 4150), (514, 1030), (37, 10)),),
    "eiger2_500k": (((512, 1028), (512, 1028), (38, 12)),),
    "eiger2_1m": (((1062, 1028), (512, 1028), (38, 12)),),
    "eiger2_4m": (((2162, 2068), (512, 1028), (38, 12)),),
    "eiger2_9m": (((3262, 3108), (512, 1028), (38, 12)),),
    "pilatus300k": (((619, 487), (195, 487), (17, 7)),),
    "pilatus1m": (((1043, 981), (195, 487), (17, 7)),),
}

# Irregular gaps of the ESRF's Eiger 2M: shape of a frame, (first, last) row of each gap, (first, last) column of each gap.
EIGER2M: tuple[Pair, Sequence[Pair], Sequence[Pair]] = (
    (2164, 1030),
    ((255, 258), (511, 551), (804, 808), (1061, 1101), (1355, 1358), (1611, 1651), (1905, 1908)),
    ((255, 258), (513, 516), (771, 774)),
)
# Beginning of a detector's name -> edge of its pixels [m].
PITCHES = {"maxipix": 55e-6, "merlin": 55e-6, "timepix": 55e-6, "lambda": 55e-6, "eiger": 75e-6, "pilatus": 172e-6}
KNOWN = tuple(sorted({*DETECTORS, "eiger2m"}))  # names of the detectors whose gaps are known without pyFAI


def find_gaps(name: str, shape: tuple[int, int]) -> BoolArray | None:
    """Return a mask that is True on the gaps of a detector.

    None is returned if the frames have another shape than the detector, for example a region of interest.

    Parameters
    ----------
    name : key of `DETECTORS` such as "eiger2m", or a detector of pyFAI, in upper or lower case
    shape : (rows, columns) of the frames

    Raises
    ------
    ConfigError : if neither `DETECTORS` nor pyFAI knows the detector.
    """
    key = name.lower()
    if key == "eiger2m":
        return _ranges(*EIGER2M[1:], shape) if shape == EIGER2M[0] else None
    if key not in DETECTORS:
        return _from_pyfai(name, shape)
    for size, module, gap in DETECTORS[key]:
        if size == shape:
            rows, columns = (np.arange(n) % (m + g) >= m for n, m, g in zip(size, module, gap, strict=True))
            return rows[:, None] | columns[None, :]
    return None


def describe_detector(name: str) -> tuple[Pair, float]:
    """Return the largest frame (rows, columns) of a detector, and the edge of its pixels [m].

    Raises
    ------
    ConfigError : if neither `DETECTORS` nor pyFAI knows the detector, or if its pixels are not square.
    """
    key = name.lower()
    pitch = next((edge for begin, edge in PITCHES.items() if key.startswith(begin)), None)
    if key in KNOWN and pitch is not None:
        return (EIGER2M[0] if key == "eiger2m" else max(size for size, _, _ in DETECTORS[key])), pitch
    known = _find_in_pyfai(name)
    if known.pixel1 != known.pixel2:
        raise ConfigError(f"detector {name!r} has no square pixels; state its shape and a pixel size instead.")
    return known.max_shape, known.pixel1


def _ranges(rows: Sequence[Pair], columns: Sequence[Pair], shape: Pair) -> BoolArray:
    masked = np.zeros(shape, dtype=bool)
    for first, last in rows:
        masked[first : last + 1] = True
    for first, last in columns:
        masked[:, first : last + 1] = True
    return masked


def _from_pyfai(name: str, shape: Pair) -> BoolArray | None:
    mask = _find_in_pyfai(name).calc_mask()
    return None if mask is None or mask.shape != shape else np.asarray(mask) != 0


def _find_in_pyfai(name: str) -> Any:
    try:
        from pyFAI.detectors import ALL_DETECTORS as FURTHER
    except ImportError:
        FURTHER = {}
    if name.lower() not in FURTHER:
        near = difflib.get_close_matches(name.lower(), [*KNOWN, *FURTHER], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(KNOWN)}."
        raise ConfigError(f"detector {name!r} is unknown; {hint}" + ("" if FURTHER else " The extra 'pyfai' knows more."))
    return FURTHER[name.lower()]()
