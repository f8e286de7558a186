"""Watch a folder and pass its frames on: images that appear one by one, or HDF5 files that grow.

A scan is a series of images ``PREFIX<number>.tif`` or ``.npy`` in one folder, or one HDF5 file, or a set of files of a DECTRIS
detector (`braggshot.live.sources.folder.eiger_files`). A scan ends when all planned frames came, when a file ``BASE.done`` or
``BASE.aborted`` appears, when its HDF5 file is closed, when the next scan begins, or after a time without frames.
A file ``BASE.json`` may hold a plan: ``{"frames": 60, "rocking_angle_deg": [...], "first": 0, "scan": "name"}``, of an
energy scan ``energy_ev`` in place of the angles.
BASE is the name of the images without their number, or the name of the HDF5 file without suffix, or the name of the folder.
A file with the folder's name may lie in the folder or beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from numpy.typing import NDArray

from braggshot.errors import ConfigError, FormatError
from braggshot.live.messages import Dropped, Message, Trouble
from braggshot.live.sources.folder.eiger_files import FileSet
from braggshot.live.sources.folder.eiger_master import member_of
from braggshot.live.sources.folder.growing_hdf5 import GrowingFile
from braggshot.live.sources.folder.listing import HDF5_SUFFIXES, Listing, Stamp, changes, number_of, read_image
from braggshot.live.sources.ledger import Ledger, ScanDefaults
from braggshot.live.sources.limits import MAX_FRAMES, MAX_TEXT, UnusableError, angles, energies, json_object, whole_number
from braggshot.volumes import Frame


@dataclass(frozen=True)
class Options(ScanDefaults):
    """Options of a source ``folder:PATH``, in addition to those of `ScanDefaults`.

    Parameters
    ----------
    pattern : pattern of the names of files that are read, such as ``*eiger*``
    existing : read also the scans that are in the folder already
    first : number in the file name of a scan's first image; None takes 0 if an image 0 is found at the start, else 1
    settle : time without a change after which a file that cannot be read counts as damaged [s]
    dataset, angle : paths, inside HDF5 files, of the dataset of frames, and of the dataset with one rocking angle per frame
    """

    pattern: str = "*"
    existing: bool = True
    first: int | None = None
    settle: float = 1.0
    dataset: str | None = None
    angle: str | None = None


@dataclass(frozen=True)
class Series:
    """The files of one scan; `name` is the name of the images without their number, or the name of the HDF5 file."""

    folder: Path
    name: str

    def bases(self) -> tuple[Path, ...]:
        """Return the paths, without suffix, at which the plan of the scan and the markers of its end are looked for."""
        plain = self.name.rstrip("_-. ")
        own_dataset = (self.folder / plain,) if plain else ()
        return (*own_dataset, self.folder / self.folder.name, self.folder)

    def origin(self) -> str:
        """Return the place of the files, as other sessions know it."""
        return str(self.folder.absolute() / self.name)

    def note(self, suffix: str) -> Path | None:
        """Return the path of the scan's plan (.json) or of a marker of its end (.done, .aborted); None if there is no such file."""
        paths = (base.with_name(base.name + suffix) for base in self.bases())
        return next((path for path in paths if path.is_file()), None)


@dataclass
class PendingFile:
    """A file, or a set of files, of which not all frames have been read yet."""

    path: Path
    series: Series
    stamp: Stamp
    growing: GrowingFile | None = None
    files: FileSet | None = None

    def is_taken(self) -> bool:
        """Tell whether all frames that have been written so far were read."""
        return self.growing is not None or (self.files is not None and self.files.is_quiet())


def connect(target: str, options: Options) -> FolderSource:
    """Return the source for ``folder:PATH``; PATH is a folder, or one HDF5 file.

    Raises
    ------
    ConfigError : if there is no such folder or file.
    """
    import watchfiles  # noqa: F401  missing libraries are reported when a source is opened

    path = Path(target)
    if not path.exists() or (path.is_file() and path.suffix.lower() not in HDF5_SUFFIXES):
        raise ConfigError(f"folder:{target}: no such folder, nor an HDF5 file; make the folder first.")
    return FolderSource(path, options)


class FolderSource:
    """A source of the scans in a folder, in the order in which their files appear."""

    def __init__(self, path: Path, options: Options) -> None:
        self.root = path.parent if path.is_file() else path
        self.options = options
        self.pattern = path.name if path.is_file() else options.pattern
        self._ledger = Ledger(options)
        self._pending: list[PendingFile] = []
        self._linked: set[Path] = set()
        self._taken: dict[str, float] = {}
        self._first: dict[Series, int] = {}
        self._lowest: dict[Series, int] = {}

    def messages(self, stop: Event) -> Iterator[Message | None]:
        """Yield messages of scans and frames, and None at least every 0.2 s while none comes; end soon after `stop` is set."""
        listing = Listing(self.root, self.pattern)
        if not self.options.existing:
            listing.new_files()
        for _ in changes(self.root, stop):
            # The marker is looked for before the files, because a detector writes its files before its marker.
            scan, ending = self._open_series(), self._find_marker()
            count = 0
            for count, message in enumerate(self.take_files(listing.new_files(everywhere=ending is not None)), 1):  # noqa: B007
                yield message
                if stop.is_set():
                    return
            is_taken = all(item.series != scan or item.is_taken() for item in self._pending)
            if ending and is_taken and self._open_series() == scan:
                yield from self._end_scan(ending)
            yield from (Dropped("no file", f"{path.name} is a FIFO, a device or a socket") for path in listing.refused)
            listing.refused.clear()
            yield from self._ledger.end_if_silent()
            if not count:
                yield None

    def leave_out(self, taken: Mapping[str, float]) -> None:
        """Leave out the series of files at the places `taken`, unless a file changed after the time of its place [s]."""
        self._taken = dict(taken)

    def _is_taken(self, path: Path, series: Series) -> bool:
        """Tell whether a file belongs to a series that an earlier session has taken, and has not changed since."""
        when = self._taken.get(series.origin())
        if when is None:
            return False
        try:
            return path.stat().st_ctime <= when
        except OSError:
            return True

    def take_files(self, paths: list[Path]) -> Iterator[Message]:
        """Read new frames from the new files and from files that were incomplete before, and yield the messages for them."""
        for path in paths:
            member = member_of(path) if path.suffix.lower() in HDF5_SUFFIXES else None
            if path in self._linked:
                continue
            if member is None:
                item = self._make_pending(path)
                if not self._is_taken(path, item.series):
                    self._pending.append(item)
            elif not self._is_taken(path, series := Series(path.parent, member[0])):
                yield from self._add_to_set(series, member[1], path)
        yield from self._take_pending()

    def _make_pending(self, path: Path) -> PendingFile:
        """Return a `PendingFile` for an image file or HDF5 file that belongs to no set of DECTRIS files."""
        if path.suffix.lower() in HDF5_SUFFIXES:
            growing = GrowingFile(path, self.options.dataset, self.options.angle)
            return PendingFile(path, Series(path.parent, path.stem), Stamp(path), growing)
        return PendingFile(path, Series(path.parent, number_of(path)[0]), Stamp(path))

    def _add_to_set(self, series: Series, number: int, path: Path) -> Iterator[Message]:
        """Add a DECTRIS file to the file set of its scan; report the file as late if the scan has ended."""
        if series in self._ledger.ended:
            yield Dropped("late", f"{path.name}, of a scan that has ended")
            return
        item = next((item for item in self._pending if item.files and item.series == series), None)
        if item is None:
            master = path.with_name(f"{series.name}_master{path.suffix}")
            item = PendingFile(path, series, Stamp(path), files=FileSet(self.root, master, self.options.settle))
            self._pending.append(item)
        assert item.files is not None
        item.files.add(number, path)

    def _open_series(self) -> Series | None:
        """Return the folder and the name of the files of the open scan as a `Series`; return None if no scan is open."""
        return self._ledger.open.key if self._ledger.open else None  # type: ignore[return-value]

    def _find_marker(self) -> Path | None:
        """Return the file that marks the open scan as over, or None if there is no such file."""
        series = self._open_series()
        return (series.note(".aborted") or series.note(".done")) if series else None

    def _end_scan(self, marker: Path) -> list[Message]:
        """End the open scan; the suffix of its marker file tells whether it is done or aborted."""
        return self._ledger.end(self._open_series(), "the scan was aborted" if marker.suffix == ".aborted" else None)

    def _take_pending(self) -> Iterator[Message]:
        """Read the pending files as far as possible; files of a later series wait for those of an earlier series."""
        pending, self._pending = self._pending, []
        # Files stand in order of their number, so that the last one kept of each series is the lowest.
        self._lowest = {item.series: number_of(item.path)[1] for item in reversed(pending)}
        for place, item in enumerate(pending):
            if self._pending and self._pending[0].series != item.series:
                yield from self._find_linked(item.files, self._pending[0].files)
                self._pending.append(item)
                continue
            has_successor = any(other.series != item.series for other in pending[place + 1 :])
            try:
                yield from self._take(item, has_successor)
            except Exception as error:  # whatever a file does to its reader, the next file is read
                yield Trouble(self._scan_name(item.series), f"{item.path.name}: {type(error).__name__}: {error}")

    def _take(self, item: PendingFile, has_successor: bool) -> Iterator[Message]:
        """Read a pending file, or a set of files, as far as possible."""
        if item.files is not None:
            return self._take_set(item, item.files, has_successor)
        return self._take_image(item) if item.growing is None else self._take_growing(item, item.growing, has_successor)

    def _take_image(self, item: PendingFile) -> Iterator[Message]:
        """Read an image file; a file that cannot be read stays pending for a while, because it may be incomplete."""
        is_away = not self.root.is_dir()  # its disk may come back, and the image with it
        is_settled = item.stamp.is_settled(self.options.settle) and not is_away
        try:
            image = read_image(item.path)
        except (UnusableError, FormatError) as error:
            if is_settled:
                reason = error.reason if isinstance(error, UnusableError) else "truncated"
                yield Dropped(reason, f"{item.path.name}: {error}")
            else:
                self._pending.append(item)
            return
        if item.stamp.has_changed():
            self._pending.append(item)
            return
        number = number_of(item.path)[1]
        if number < 0:
            yield Dropped("unnumbered", item.path.name)
            return
        yield from self._begin_scan(item.series, number)
        index = number - self._first.get(item.series, 0)
        yield from self._ledger.frame(
            item.series, self._scan_name(item.series), Frame(index, image, time=_modification_time(item.path))
        )

    def _take_growing(self, item: PendingFile, file: GrowingFile, has_successor: bool) -> Iterator[Message]:
        """Read the new frames of an HDF5 file; the file stays pending until its writer closes it or its scan has ended."""
        is_complete, reason = file.is_complete(), ""
        try:
            for index, image, value in file.frames():
                yield from self._begin_scan(item.series, 0)
                frame = file.stepped.place(Frame(index, image, time=time.time()), value)
                yield from self._ledger.frame(item.series, self._scan_name(item.series), frame)
        except UnusableError as error:
            yield Dropped(error.reason, f"{item.path.name}: {error.detail}")
            is_complete = True
        except FormatError as error:
            reason = str(error)
        if not (is_complete or has_successor or item.series in self._ledger.ended):
            self._pending.append(item)
            return
        file.close()
        if reason:
            yield Dropped("unreadable", reason)
        if is_complete:
            yield from self._ledger.end(item.series)

    def _take_set(self, item: PendingFile, files: FileSet, has_successor: bool) -> Iterator[Message]:
        """Read the new frames of a set of DECTRIS files; the set stays pending until all frames came or its scan has ended."""
        if files.master is None and item.path in self._linked:
            return  # the set belongs to a master in another folder, which links to it
        for item_or_drop in files.new_frames():
            if isinstance(item_or_drop, Dropped):
                yield item_or_drop
                continue
            index, image = item_or_drop
            if not self._ledger.is_known(item.series):
                if not files.has_mask_of(image):
                    yield Dropped("shape", f"the pixel mask of {item.series.name} is of another shape than its images")
                yield from self._begin_scan(item.series, 0, files, image)
            yield from self._ledger.frame(item.series, self._scan_name(item.series), Frame(index, image, None, time.time()))
        self._linked |= files.foreign_files
        is_complete = files.is_complete()
        if not (is_complete or item.series in self._ledger.ended or (has_successor and files.is_over())):
            self._pending.append(item)
            return
        yield from files.report_missing()
        self._linked |= files.present_files()  # a file that was read by its link before it is listed is not late
        if is_complete:
            yield from self._ledger.end(item.series)

    def _find_linked(self, files: FileSet | None, earlier: FileSet | None) -> Iterator[Message]:
        """Read the master of a set that waits for an earlier set without a master, because it may link to the earlier files."""
        if files is not None and earlier is not None and earlier.master is None:
            yield from files.read_master_again()
            self._linked |= files.foreign_files

    def _begin_scan(
        self, series: Series, number: int, files: FileSet | None = None, image: NDArray[Any] | None = None
    ) -> Iterator[Message]:
        """Begin a scan at its first file; a ``.json`` file beside it may hold the plan of the scan.

        A scan that is still open ends first: as its marker file says (done or aborted), or because the next scan begins.
        """
        if self._ledger.is_known(series):
            return
        if marker := self._find_marker():
            yield from self._end_scan(marker)
        name, about = self._scan_name(series), None
        plan: dict[str, Any] = {}
        if files is not None and image is not None:
            about = files.describe_scan(name, image)
            plan = {} if files.master is None else {"frames": files.frames, "rocking_angle": files.master.rocking_angle}
        try:
            plan |= read_plan(series.note(".json"))
        except UnusableError as error:
            yield Dropped(error.reason, f"the plan of {series.name}: {error.detail}")
        rocking = plan.get("rocking_angle")
        if rocking is not None and len(rocking) != plan.get("frames", len(rocking)):
            rocking = None  # the angles of the master do not fit the number of frames in a note
        first = plan.get("first", self.options.first)
        # The first image may still be pending when the second one is taken.
        self._first = {series: min(number, self._lowest.get(series, 1), 1) if first is None else first}
        yield from self._ledger.begin(series, plan.get("scan", name), plan.get("frames"), None, rocking, about, series.origin())
        self._ledger.plan_energies(plan.get("energy"))

    def _scan_name(self, series: Series) -> str:
        """Return a name for a scan: folder and file name, or only the file name if that begins with the folder's name."""
        plain, folder = series.name.rstrip("_-. "), series.folder
        places = folder.relative_to(self.root).parts
        if not places or plain.startswith(folder.name):
            return plain or self.root.resolve().name
        return "_".join((*places, plain)) if plain else "_".join(places)


def read_plan(path: Path | None) -> dict[str, Any]:
    """Read the plan of a scan from a JSON file beside the frames; the plan is empty if there is no such file.

    Raises
    ------
    UnusableError : if the file does not hold a plan.
    """
    if path is None:
        return {}
    try:
        with path.open("rb") as stream:
            note = json_object(stream.read(MAX_TEXT + 1))
    except OSError as error:
        raise UnusableError("malformed", f"{path.name} cannot be read") from error
    plan: dict[str, Any] = {}
    for name, lowest in (("frames", 1), ("first", 0)):
        if name in note:
            plan[name] = whole_number(note[name], name, lowest, MAX_FRAMES)
    if isinstance(note.get("scan"), str):
        plan["scan"] = note["scan"]
    if (rocking := angles(note.get("rocking_angle_deg"), plan.get("frames"))) is not None:
        plan["rocking_angle"] = rocking
    if (stepped := energies(note.get("energy_ev"), plan.get("frames"))) is not None:
        plan["energy"] = stepped
    return plan


def _modification_time(path: Path) -> float | None:
    """Return the modification time of a file, in seconds since the epoch; None if the file is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return None
