"""Write the frames of a scan to disk, and build its rocking curve, from the messages of a source.

Frames that never come stay masked; their counts are never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braggshot.errors import BraggshotError, DataError, OutputError
from braggshot.io.atomic import check_room
from braggshot.io.formats import recorded
from braggshot.io.formats.recorded import Plan, Recorder
from braggshot.io.frames import ArrayFrames
from braggshot.live.given import WORDS, GivenImage, fit_image
from braggshot.live.messages import Arrived, Begin, Dropped, End, Message, Trouble
from braggshot.live.sources.limits import scan_name
from braggshot.volumes import BoolArray, Frame, Scan

MAX_PIXELS = 192  # longest side of the binned frames that the page shows [pixels]
UNRECORDED = "it could not be recorded"
TOO_FEW = "a single frame is no 3D scan"
LARGEST_COUNT = 1e15  # larger numbers, infinities and NaN are no counts [counts]
COPIED_FIELDS = ("valid", "dark", "flat", "geometry", "detector")
"""Fields of a `Scan` that are copied from the user's example scan if the source does not send them."""


@dataclass
class OpenScan:
    """A scan that is being measured.

    Parameters
    ----------
    name : name of the folder that its frames are recorded in, unique among all recordings
    begin : message of the source that announced the scan
    recorder : writer of the frames to disk; None before the first frame
    rocking : sum of the counts of each frame, NaN where the frame has not come [counts]
    last, total : the newest frame and the sum of all frames, binned to at most 192 pixels a side, for the page [counts]
    received : number of frames that were recorded
    told : faults of this scan that the user was told
    refused : why no volume can be made of the scan, in words; empty if one can
    """

    name: str
    begin: Begin
    recorder: Recorder | None = None
    rocking: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    last: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    total: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    received: int = 0
    told: set[str] = field(default_factory=set)
    refused: str = ""

    def tell_once(self, kind: str, words: str, is_loss: bool) -> Iterator[Trouble]:
        """Yield a report of a fault, unless one of its kind was yielded for this scan."""
        if kind not in self.told:
            self.told.add(kind)
            yield Trouble(self.name, words, is_loss)

    @property
    def expected(self) -> int | None:
        """Number of planned frames, None if it is not known."""
        return self.begin.frames


@dataclass(frozen=True)
class ScanOpened:
    """A report that a scan has begun; `scan` is this scan."""

    scan: OpenScan


@dataclass(frozen=True)
class FrameAdded:
    """A report that a frame was recorded; `scan` is the scan that is being measured."""

    scan: OpenScan


@dataclass(frozen=True)
class ScanClosed:
    """A report that a scan is over; `aborted` holds the reason in words if the scan ended early, and is empty otherwise."""

    scan: OpenScan
    aborted: str = ""


Change = ScanOpened | FrameAdded | ScanClosed | Dropped | Trouble


class Assembly:
    """A recorder of the frames of a source; each scan gets a folder of its own.

    Parameters
    ----------
    folder : folder for all recordings
    like : example scan; its dark image, flat field, mask and geometry are used where the source sends none
    images : images that the user gives; they replace those of the source and of the example scan
    is_taken : function that tells whether another scan already has a given name
    """

    def __init__(
        self,
        folder: Path,
        like: Scan | None = None,
        images: Sequence[GivenImage] = (),
        is_taken: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.folder, self.images, self.is_taken = folder, images, is_taken
        self.like = None if like is None else replace(like, monitor=None, rocking_angle=None, arrived=None)
        self.open: OpenScan | None = None
        self._given_up: str = ""  # name of the scan that could not be recorded, as the source gave it
        self._last: str = ""  # name of the scan that ended last, as the source gave it

    def take(self, message: Message) -> Iterator[Change]:
        """Apply a message of the source, and report the effect: a scan begins, a frame is added, a scan ends, data are dropped."""
        if isinstance(message, Dropped | Trouble):
            yield message
        elif isinstance(message, Begin):
            yield from self._close("the next scan began")
            self.open = OpenScan(self._unique_name(message.scan), message)
            yield ScanOpened(self.open)
            yield from self._check_room(self.open)
        elif self.open is None or message.scan != self.open.begin.scan:
            # A scan was closed already when its last planned frame came: its end is no error.
            if isinstance(message, Arrived) and message.scan == self._given_up:
                yield Dropped("not recorded", f"frame {message.frame.index} of {message.scan}")
            elif not (isinstance(message, End) and message.scan == self._last):
                yield Dropped("no scan", f"{type(message).__name__} of {message.scan!r}, which is not open")
        elif isinstance(message, Arrived):
            yield from self._add(self.open, message)
        else:
            yield from self._close(message.aborted)

    def _check_room(self, scan: OpenScan) -> Iterator[Change]:
        """Report before the first frame comes if the disk has no room for the planned ones; some may be freed until then."""
        begin = scan.begin
        if begin.frames is None or begin.shape is None:
            return
        pixel = 1 if begin.about is None else np.dtype(begin.about.frames.dtype).itemsize
        try:
            check_room(self.folder, begin.frames * begin.shape[0] * begin.shape[1] * pixel, "the scan")
        except OutputError as error:
            yield from scan.tell_once("room", str(error), is_loss=False)

    def _add(self, scan: OpenScan, message: Arrived) -> Iterator[Change]:
        """Record a frame and extend the rocking curve; close the scan if this was the last planned frame."""
        if scan.recorder is None:
            yield from self._report_unfit_example(scan, message.frame.image)
            plan, unfit = self._use_given(self._plan(scan, message.frame))
            yield from self._refuse(scan, plan, message.frame)
            plan = replace(plan, about=replace(plan.about, geometry=None)) if scan.refused and plan.about is not None else plan
            scan.recorder = Recorder(self.folder / scan.name, plan)
            yield from unfit
            scan.rocking = np.full(scan.expected or 0, np.nan)
        try:
            refused = scan.recorder.add(message.frame)
        except OutputError as error:
            yield from scan.tell_once("recording", str(error), is_loss=True)
            refused = "not recorded"
        if refused:
            yield Dropped(refused, f"frame {message.frame.index} of {scan.name}")
            return
        index = message.frame.index
        if index >= len(scan.rocking):
            scan.rocking = np.concatenate([scan.rocking, np.full(index + 1 - len(scan.rocking), np.nan)])
        trusted, odd = _trusted_counts(scan.recorder.plan, message.frame.image)
        if odd:
            yield from scan.tell_once("odd", f"{odd} pixels of frame {index} hold no counts (NaN, inf); such are masked", False)
        scan.rocking[index] = float(trusted.sum(dtype=np.float64))
        scan.last = shrink(trusted)
        scan.total = scan.total + scan.last if scan.received else scan.last
        scan.received += 1
        yield FrameAdded(scan)
        if scan.received == scan.expected:
            yield from self._close("")

    def _refuse(self, scan: OpenScan, plan: Plan, frame: Frame) -> Iterator[Change]:
        """Report that no volume can be made of a scan, because what it steps and the known geometry do not fit."""
        scan.refused = plan.refusal(frame.rocking_angle is not None or plan.rocking_angle is not None)
        if scan.refused:
            yield from scan.tell_once("refused", f"it is recorded and not phased: {scan.refused}", is_loss=True)

    def _plan(self, scan: OpenScan, frame: Frame) -> Plan:
        """Return the `Plan` of a recording, made from the message that announced the scan and from the first frame."""
        image = frame.image
        begin, about = scan.begin, self._fill_from_similar(scan.begin.about, image)
        is_streamed = scan.begin.about is None or "stream" in scan.begin.about.provenance
        if is_streamed and image.dtype.kind == "u":
            # Counting detectors mark "not counted" by the largest number of their type, without announcing it.
            no_count_value = {"no_count": int(np.iinfo(image.dtype).max)}
            about = about or Scan(frames=ArrayFrames(image[None]), name=scan.name)
            about = replace(about, provenance={**about.provenance, **no_count_value})
        rows, columns = image.shape
        return Plan(scan.name, (rows, columns), image.dtype, begin.frames, begin.rocking_angle, about, frame.energy is not None)

    def _use_given(self, plan: Plan) -> tuple[Plan, list[Dropped]]:
        """Put the images that the user gives into the plan of a recording; report those that do not fit its frames."""
        unfit = []
        for image in self.images:
            about = plan.about or Scan(frames=ArrayFrames(np.zeros((1, *plan.shape))), name=plan.name)
            try:
                values = fit_image(image, plan.shape, about.provenance)
            except DataError as error:
                unfit.append(Dropped(f"{WORDS[image.field]} of another shape", str(error)))
            else:
                frames = about.frames if about.frames.shape[1:] == plan.shape else ArrayFrames(np.zeros((1, *plan.shape)))
                changes: dict[str, Any] = {"frames": frames, image.field: values}
                plan = replace(plan, about=replace(about, **changes))
        return plan, unfit

    def _fill_from_similar(self, about: Scan | None, image: NDArray[Any]) -> Scan | None:
        """Return the source's description of a scan, with missing fields filled from the user's example scan."""
        if about is None or self.like is None or about.prepared or not self._is_like(image):
            return about or (self.like if self._is_like(image) else None)
        # A detector may send only a part of its pixels; the mask must fit the images that really come.
        frames = about.frames if about.frames.shape[1:] == image.shape else ArrayFrames(image[None])
        return replace(
            about, frames=frames, **{name: getattr(self.like, name) for name in COPIED_FIELDS if getattr(about, name) is None}
        )

    def _is_like(self, image: NDArray[Any]) -> bool:
        """Tell whether the example scan has frames of the shape of an image."""
        return self.like is not None and tuple(self.like.frames.shape[1:]) == image.shape

    def _report_unfit_example(self, scan: OpenScan, image: NDArray[Any]) -> Iterator[Change]:
        """Report that the frames of the example scan have another shape; nothing of it is used then."""
        if self.like is not None and not self._is_like(image):
            shape = tuple(self.like.frames.shape[1:])
            words = f"its frames have shape {image.shape}, those of the example scan {shape}: nothing of that scan is used"
            yield from scan.tell_once("example", words, is_loss=False)

    def give_up(self) -> Iterator[Change]:
        """Close the open scan, because it cannot be recorded."""
        self._given_up = "" if self.open is None else self.open.begin.scan
        yield from self._close(UNRECORDED)

    def _close(self, aborted: str) -> Iterator[Change]:
        """Close the open scan, if there is one."""
        scan, self.open = self.open, None
        if scan is None:
            return
        self._last = scan.begin.scan
        if scan.recorder is not None:
            aborted = aborted or scan.refused
            if not aborted and scan.received == 1:
                aborted = TOO_FEW
                yield Dropped("single frame", f"{scan.name}: {aborted}")
            try:
                scan.recorder.end(aborted)
            except OutputError as error:
                yield from scan.tell_once("recording", str(error), is_loss=True)
        yield ScanClosed(scan, aborted)

    def _unique_name(self, wanted: str) -> str:
        """Return a name that is safe as a file name and used by no other scan."""
        name = scan_name(wanted)
        number, free = 1, name
        while self.is_taken(free) or (self.folder / free).exists():
            number += 1
            free = f"{name}-{number}"
        return free


def _trusted_counts(plan: Plan, image: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return an image with zeros on pixels that are not trusted, and the number of valid pixels that hold no possible counts.

    Pixels are not trusted if they are not valid, if their value means "not counted" for the detector, or holds no counts at all.
    """
    good = _valid_pixels(plan)
    trusted = image if good is None else np.where(good, image, np.zeros((), image.dtype))
    no_count = None if plan.about is None else plan.about.provenance.get("no_count")
    trusted = trusted if no_count is None else np.where(image == no_count, 0, trusted)
    if image.dtype.kind != "f":
        return trusted, 0
    possible = np.abs(trusted) <= LARGEST_COUNT
    odd = possible.size - int(np.count_nonzero(possible))
    return (np.where(possible, trusted, 0) if odd else trusted), odd


def shrink(image: NDArray[Any], longest: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Sum an image over square bins, so that no side is longer than `longest` pixels."""
    side = max(1, -(-max(image.shape) // longest))
    rows, columns = (-(-n // side) * side for n in image.shape)
    whole = np.zeros((rows, columns), np.float32)
    whole[: image.shape[0], : image.shape[1]] = image
    lines = whole.reshape(rows // side, side, columns).sum(axis=1)
    binned: NDArray[np.float32] = lines.reshape(rows // side, columns // side, side).sum(axis=2)
    return binned


def _valid_pixels(plan: Plan) -> BoolArray | None:
    """Return the (rows, columns) mask of valid pixels, or None if the recording has no mask."""
    valid = None if plan.about is None else plan.about.valid
    return valid if valid is not None and valid.ndim == 2 else None


def recordings_in(folder: Path) -> list[tuple[Path, dict[str, Any] | None]]:
    """List the recordings in a folder, oldest first: the path of each, and a dict that tells how its scan ended.

    The dict is replaced by None if the program was stopped before the scan ended.
    """
    found = []
    for path in folder.glob("*"):
        with suppress(BraggshotError, OSError):  # one that is damaged, or being removed
            if recorded.can_read(path):
                found.append(((path / recorded.ABOUT).stat().st_mtime, path, recorded.read_ending(path)))
    return [(path, end) for _, path, end in sorted(found, key=lambda item: item[:2])]
