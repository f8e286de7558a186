"""Follow the files of a DECTRIS detector while they appear: a master file, and data files that come one after the other.

::

    NAME_master.h5          entry/data/data_000001 -> NAME_data_000001.h5:/entry/data/data, ...
        entry/instrument/detector/detectorSpecific/{nimages, ntrigger, pixel_mask}      entry/sample/goniometer/omega [deg]
    NAME_data_000001.h5     entry/data/data (frames, rows, columns), with attributes image_nr_low and image_nr_high

A data file is complete when it appears, or grows in SWMR mode. For safety, HDF5 never follows a link to another file. Each file is
opened separately, and only if it lies below the watched folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from braggshot.errors import FormatError
from braggshot.io.beamlines.petra_p10 import SIZES
from braggshot.io.files import hdf5_reason
from braggshot.io.frames import ArrayFrames
from braggshot.live.messages import Dropped
from braggshot.live.sources.decoding import ImageDecoder
from braggshot.live.sources.folder.eiger_master import FRAMES_PATH, Master, is_inside, member_of, read_master
from braggshot.live.sources.folder.growing_hdf5 import open_shared, stack_image_bytes, superblock
from braggshot.live.sources.folder.listing import Stamp
from braggshot.live.sources.folder.untrusted_hdf5 import integer_attribute, own_dataset, read_frames, written_frames
from braggshot.live.sources.limits import UnusableError
from braggshot.volumes import Scan

PATIENCE = 10
"""Longest wait for a missing file of a scan, as a multiple of the option ``settle`` [1].

``settle`` is the time without a change after which a file that cannot be read counts as damaged.
"""


@dataclass
class DataFile:
    """A data file of a DECTRIS detector, and how far it was read.

    Parameters
    ----------
    stamp : size and modification time of the file
    name : path of the frames inside the file
    first : index, in the whole scan, of the file's first frame; None before the file could be read
    frames : number of frames that the file has places for; None while it grows, or before it could be read
    taken, damaged : indices, inside the file, of the frames that were read, and of the frames that were reported as damaged
    seen : time when the file was first found [s]; None if it was not found yet
    is_whole : whether all frames of the file were read and the file is closed
    is_open : whether a writer had the file open when it was last read
    is_settled : whether the file was read after it had not changed for a while
    is_reported : whether the loss of the file was reported
    """

    stamp: Stamp
    name: str = FRAMES_PATH
    first: int | None = None
    frames: int | None = None
    taken: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    seen: float | None = None
    is_whole: bool = False
    is_open: bool = False
    is_settled: bool = False
    is_reported: bool = False


class FileSet:
    """The files of one scan of a DECTRIS detector; each of their frames is read once.

    Parameters
    ----------
    root : watched folder; files outside it are not read
    master : path of the master file, which may not be there yet
    settle : time without a change after which a file that cannot be read counts as damaged [s]

    Attributes
    ----------
    master : content of the master file; None before it could be read
    parts : data files, by number
    is_waiting : whether a file was not read yet because an earlier file may still come
    foreign_files : files that the master file links to, although their folder or name belongs to another scan
    """

    def __init__(self, root: Path, master: Path, settle: float) -> None:
        self.root, self.settle = root, settle
        self.master: Master | None = None
        self.parts: dict[int, DataFile] = {}
        self.is_waiting = True
        self.foreign_files: set[Path] = set()
        self._name = (member_of(master) or ("", 0))[0]
        self._stamp, self._is_master_settled = Stamp(master), False
        self._reported: set[str] = set()
        self._decoder = ImageDecoder()
        self._began = self._changed = time.monotonic()
        self._first_number: int | None = None  # number that the detector gave to the first image of the scan

    def add(self, number: int, path: Path) -> None:
        """Add a data file that has appeared, unless a link in the master file has added it before."""
        if number:
            self.parts.setdefault(number, DataFile(Stamp(path)))

    def new_frames(self) -> Iterator[tuple[int, NDArray[Any]] | Dropped]:
        """Yield the new frames, file by file, each with its index in the scan; yield `Dropped` for data that cannot be used."""
        if not self.root.is_dir():  # its disk may come back, and the files with it
            self.is_waiting = True
            return
        yield from self.read_master_again()
        is_lost = self._stamp.is_there() and self._is_master_settled
        is_due = is_lost or time.monotonic() - self._began >= PATIENCE * self.settle
        self.is_waiting = self.master is None and not is_due
        if self.is_waiting:  # the mask and the plan are in the master
            return
        for part in self.parts.values():
            self._update_stamp(part)
        successor_times = self._successor_times()
        for number, part in sorted(self.parts.items()):
            if part.stamp.is_there():
                if not (part.is_whole or part.is_settled):
                    yield from self._read_data_file(number, part)
                is_blocking = part.first is None and not part.is_settled
            else:
                is_blocking = successor_times[number] > time.monotonic() - self.settle
                if not is_blocking and successor_times[number] < math.inf:
                    yield from self._report_missing_file(part)
            if is_blocking and successor_times[number] < math.inf:  # later files wait a while, so that frames come in order
                self.is_waiting = True
                return

    def _successor_times(self) -> dict[int, float]:
        """Return a dict: number of a data file -> time when the first file with a higher number was found [s]; inf if none was."""
        earliest, times = math.inf, {}
        for number, part in sorted(self.parts.items(), reverse=True):
            times[number] = earliest
            earliest = min(earliest, math.inf if part.seen is None else part.seen)
        return times

    def describe_scan(self, name: str, image: NDArray[Any]) -> Scan:
        """Return a `Scan` without counts that holds the detector, and the pixel mask from the master file.

        The detector is recognised by the shape of `image`. The mask is left out if its shape is not that of `image`.
        """
        nothing: NDArray[Any] = np.broadcast_to(np.zeros((), image.dtype), (self.frames or 1, *image.shape))
        valid = None if self.master is None or not self.has_mask_of(image) else self.master.valid
        stream = {"master": self._stamp.path.name}
        detector = SIZES.get((image.shape[0], image.shape[1]))
        return Scan(ArrayFrames(nothing), name, valid=valid, detector=detector, provenance={"stream": stream})

    def has_mask_of(self, image: NDArray[Any]) -> bool:
        """Tell whether the pixel mask in the master file has the shape of an image; return True if there is no mask."""
        return self.master is None or self.master.valid is None or self.master.valid.shape == image.shape

    @property
    def frames(self) -> int | None:
        """Number of planned frames, None if the master file does not hold it."""
        return None if self.master is None else self.master.frames

    def is_quiet(self) -> bool:
        """Tell whether all files that exist so far were read as far as possible."""
        there = [part for part in self.parts.values() if part.stamp.is_there()]
        return not self.is_waiting and all(part.is_whole or part.is_settled for part in there)

    def is_over(self) -> bool:
        """Tell whether the scan may end, given that another scan has begun.

        It may end if all files that exist were read, and no file is missing or the missing files were waited for long enough.
        """
        is_all_there = self.master is not None and all(part.stamp.is_there() for part in self.parts.values())
        return self.is_quiet() and (is_all_there or self._is_older(PATIENCE * self.settle))

    def is_complete(self) -> bool:
        """Tell whether the files that exist have places for all planned frames, are closed, and no longer change."""
        parts = list(self.parts.values())
        known = [part.frames for part in parts if part.frames is not None]
        if self.frames is None or not known or not self.is_quiet():
            return False
        if not all(part.stamp.is_there() and not part.is_open for part in parts):
            return False
        return sum(max(known) if part.frames is None else part.frames for part in parts) >= self.frames

    def present_files(self) -> set[Path]:
        """Return the paths of the master file and data files that exist."""
        stamps = [self._stamp, *(part.stamp for part in self.parts.values())]
        return {stamp.path for stamp in stamps if stamp.is_there()}

    def report_missing(self) -> Iterator[Dropped]:
        """Report data files that never came, each once."""
        for _, part in sorted(self.parts.items()):
            if not part.stamp.is_there():
                yield from self._report_missing_file(part)

    def _report_missing_file(self, part: DataFile) -> Iterator[Dropped]:
        """Report a missing data file, unless it was reported before."""
        if not part.is_reported:
            part.is_reported = True
            yield Dropped("missing", part.stamp.path.name)

    def _is_older(self, seconds: float) -> bool:
        """Tell whether no file of the scan has changed for `seconds`."""
        return time.monotonic() - self._changed >= seconds

    def _update_stamp(self, part: DataFile) -> None:
        """Record whether a data file has changed, and when it was first found."""
        if part.stamp.has_changed():
            part.is_whole = part.is_settled = False
            self._changed = time.monotonic()
        if part.seen is None and part.stamp.is_there():
            part.seen = time.monotonic()

    def read_master_again(self) -> Iterator[Dropped]:
        """Read the master file; read it anew at each call until it has not changed for the time `settle`.

        One reading is not enough, because a coarse modification time may hide a later change.
        """
        if self._stamp.has_changed():
            self._is_master_settled = False
            self._changed = time.monotonic()
        if self._is_master_settled or not self._stamp.is_there():
            return
        self._is_master_settled = self._stamp.is_old(self.settle)
        try:
            self.master = read_master(self._stamp.path, self.root)
        except (FormatError, UnusableError) as error:
            if self._is_master_settled:
                yield Dropped(
                    error.reason if isinstance(error, UnusableError) else "unreadable", f"{self._stamp.path.name}: {error}"
                )
            return
        for number, (path, name) in self.master.links.items():
            part = self.parts.get(number)
            if part is None or (part.stamp.path != path and not part.taken):
                part = self.parts[number] = DataFile(Stamp(path))
            part.name = name
        own_dataset = (self._stamp.path.parent, self._name)
        paths = {path for path, _ in self.master.links.values()}
        self.foreign_files = {path for path in paths if (path.parent, (member_of(path) or ("", 0))[0]) != own_dataset}
        yield from (Dropped("link", words) for words in self.master.refused if words not in self._reported)
        self._reported.update(self.master.refused)

    def _read_data_file(self, number: int, part: DataFile) -> Iterator[tuple[int, NDArray[Any]] | Dropped]:
        """Yield the new frames of a data file; a file that cannot be read is reported once it has not changed for a while."""
        is_old = part.stamp.is_old(self.settle)
        lost: Dropped | None = None
        try:
            yield from self._read(number, part, is_old)
        except UnusableError as error:
            lost = Dropped(error.reason, f"{part.stamp.path.name}: {error.detail}")
        except FormatError as error:
            lost = Dropped("unreadable", str(error))
        except (OSError, KeyError, RuntimeError, ValueError) as error:  # h5py has no error of its own
            lost = Dropped("unreadable", f"{part.stamp.path.name}: cannot be read as HDF5 ({hdf5_reason(error)})")
        part.is_settled = is_old
        if lost is not None and is_old and not part.is_reported:
            part.is_reported = True
            yield lost

    def _read(self, number: int, part: DataFile, is_old: bool) -> Iterator[tuple[int, NDArray[Any]] | Dropped]:
        """Yield the new frames of a data file, and record which frames were read, so that none is yielded twice."""
        path = part.stamp.path
        if not is_inside(self.root, path):
            raise UnusableError("link", "it leads out of the watched folder")
        version, flags = superblock(path)
        part.is_open = version >= 3 and bool(flags & 1)
        with open_shared(path) as file:
            data = own_dataset(file, part.name)
            if data is None:
                raise FormatError(f"{path.name}: there is no {part.name}.")
            stack_image_bytes(data)
            here = written_frames(data)
            if part.first is None:
                part.first = self._first_index(number, data)
            new = [index for index in np.flatnonzero(here).tolist() if index not in part.taken]
            for index, image_or_error in read_frames(data, new, self._decoder):
                if isinstance(image_or_error, UnusableError):
                    if is_old and index not in part.damaged:
                        part.damaged.add(index)
                        yield Dropped(image_or_error.reason, f"frame {part.first + index}, in {path.name}: {image_or_error.detail}")
                    continue
                part.taken.add(index)
                yield part.first + index, image_or_error
            part.frames = None if part.is_open else len(here)
            part.is_whole = part.frames == len(part.taken)

    def _first_index(self, number: int, data: h5py.Dataset) -> int:
        """Return the index, in the whole scan, of the first frame in a data file.

        The index is computed from the image number in the file. If the file has no image number, the index is the total number of
        frames in the data files before it.
        """
        numbers = sorted(self.parts)
        low = integer_attribute(data, "image_nr_low")
        if low is not None:
            # The first file tells the number at which the detector begins to count; without that file it is 1.
            start = low if number == numbers[0] else self._first_number if self._first_number is not None else 1
            self._first_number = start if number == numbers[0] else self._first_number
            return low - start
        before = [self.parts[earlier].frames for earlier in numbers if earlier < number]
        known = [count for part in self.parts.values() if (count := part.frames) is not None]
        usual = max(known) if known else int(data.shape[0])  # number of frames in each data file; the last one may hold fewer
        return sum(usual if count is None else count for count in before)
