"""Find out what earlier sessions in the same folder left: scans to be phased, scans that were cut off, scans that are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from braggshot.io import results
from braggshot.io.formats import recorded
from braggshot.live.assemble import recordings_in
from braggshot.live.mailbox import FinishedScan, Mailbox
from braggshot.live.sources.limits import scan_name
from braggshot.live.status import Journal, Status, read_events
from braggshot.output import OutputFormat, targets_of, write


@dataclass(frozen=True)
class Places:
    """Folder of the results, folder of the recordings, and formats of the files of a result."""

    folder: Path
    recordings: Path
    formats: tuple[OutputFormat, ...]


def resume(places: Places, status: Status, journal: Journal, mailbox: Mailbox) -> None:
    """Submit scans that an earlier session recorded whole but did not reconstruct; report scans that it recorded in part.

    Where the session was killed between the files of a result, or a full disk took some of them, the missing ones are written from
    its CXI file.
    """
    tasks: list[tuple[str, Callable[[], None]]] = []
    for path, frames in _lossy_results(places, journal.path):
        tasks.append((path.stem, partial(_complete, path, frames, places, journal)))
    for path, end in recordings_in(places.recordings):
        result = places.folder / f"{path.name}.cxi"
        if result.exists():
            tasks.append((path.name, partial(_complete, result, 0 if end is None else end["frames"], places, journal)))
        else:
            tasks.append((path.name, partial(_resume_one, path, end, status, journal, mailbox)))
    for name, task in tasks:
        try:
            task()
        except Exception as error:  # whatever is wrong with one scan, the others are not lost with it
            journal.trouble(name, error)


def _lossy_results(places: Places, events: Path) -> list[tuple[Path, int]]:
    """List the results of which files were lost when they were written, with the numbers of frames."""
    lost, found = set(), {}
    for event in read_events(events):
        if event.get("event") == "trouble" and event.get("is_loss"):
            lost.add(event.get("scan"))
        elif event.get("event") == "result" and isinstance(event.get("scan"), str) and event["scan"] in lost:
            found[event["scan"]] = event
    incomplete = []
    for name, event in found.items():
        targets = targets_of(places.folder, scan_name(name), places.formats)
        path = places.folder / f"{scan_name(name)}.cxi"
        if path.exists() and not {target.name for target in targets.values()} <= set(event.get("files") or ()):
            incomplete.append((path, int(event.get("frames", 0))))
    return incomplete


def _complete(path: Path, frames: int, places: Places, journal: Journal) -> None:
    """Write the files of a result that are missing, and the event that told of it."""
    targets = targets_of(places.folder, path.stem, places.formats)
    missing = tuple(kind for kind in places.formats if not targets[kind].exists())
    if not missing:
        return
    result = results.read(path)
    write(result, places.folder, missing)
    files = [target.name for target in targets.values()]
    facts = {"verdict": result.verdict, "reasons": " ".join(result.reasons), "chi2": result.quality.chi2}
    journal.write("result", path.stem, frames, file=files[0], files=files, **facts)


def _resume_one(path: Path, end: Mapping[str, Any] | None, status: Status, journal: Journal, mailbox: Mailbox) -> None:
    """Submit or report one recording; `end` tells how its scan ended, None if the session was cut off before."""
    if end is None and recorded.is_whole(path):
        recorded.mark_ended(path, "")
        end = recorded.read_ending(path)
    if end is None:
        journal.write("scan cut off", path.name)
        status.add_trouble(f"{path.name}: cut off when an earlier session ended; its frames are in {path}")
        recorded.mark_ended(path, "the session ended")
    elif not end["aborted"]:
        mailbox.submit(FinishedScan(path.name, path, end["frames"], time.monotonic()))


def taken_before(folder: Path, recordings: Path, events: Path) -> dict[str, float]:
    """Return where the scans lie that earlier sessions have taken, and when each was taken [s since the epoch].

    A scan counts as taken if its result is in `folder`, or its frames in `recordings`, which are phased without the source.
    """
    taken: dict[str, float] = {}
    for event in read_events(events):
        name, origin, when = event.get("scan"), event.get("origin"), event.get("time")
        if event.get("event") != "scan finished" or not (name and isinstance(name, str) and origin and isinstance(when, float)):
            continue
        if (folder / f"{name}.cxi").exists() or recorded.can_read(recordings / name):
            taken[str(origin)] = when
    return taken
