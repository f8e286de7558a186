"""Does it cost anything to end a scan when the live page says so? Scans are replayed, ended when told, and phased, and so whole.

    nice python benchmarks/advice.py rows.jsonl                      # seeds 92000 to 92019
    nice python benchmarks/advice.py rows.jsonl --first 90000 --scans 3 --enough 0.01 0.015 0.02 0.03
    python benchmarks/advice.py rows.jsonl --table                   # the table only

The scans are those of `braggshot.crystals.scan` as they come: 201 frames of 256 x 256 pixels at 34-ID-C, the peak at frame 96.
Every sixth frame, as in a live session, the frames so far are prepared as for a picture, and advice is asked for. A scan that is
ended early has the planned frames that never came masked. Both are phased by `refine`, and correlated with the true crystal on its
own grid. Rows that are in the file already are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggshot.crystal_frame import to_lab
from braggshot.crystals.scan import ScanSettings, Truth, simulate_scan
from braggshot.io.frames import ArrayFrames
from braggshot.live.advice import ENOUGH, advise
from braggshot.live.mailbox import PreviewRequest
from braggshot.live.preview import Preview, prepare_part
from braggshot.live.receiver import MAX_PREVIEWS, find_passed_peak
from braggshot.phasing.config import PhasingConfig
from braggshot.physics.fourier import pad
from braggshot.physics.metrics import align
from braggshot.pipeline import drain, prepare_and_phase
from braggshot.prepare import PrepareConfig
from braggshot.volumes import Scan

TRUTH = 8e-9  # voxel edge of the true crystal [m]
Row = dict[str, Any]


def scan_of(seed: int) -> tuple[Scan, Truth]:
    """Simulate a scan; the phase range is 1 to 6 rad, by the seed."""
    scan, truth = simulate_scan(seed, settings=ScanSettings(phase_range=1.0 + 5 * (seed % 10) / 9, truth_voxel=TRUTH))
    return replace(scan, frames=np.asarray(scan.frames)), truth


def first_frames(scan: Scan, number: int) -> Scan:
    """Return the scan as it is when so many frames have come."""
    here = np.arange(len(scan.frames)) < number
    images = np.where(here[:, None, None], scan.frames, 0)
    return replace(scan, frames=ArrayFrames(images), arrived=None if here.all() else here)


def told(scan: Scan) -> Iterator[tuple[int, PreviewRequest, Preview]]:
    """Yield what a session prepares for its pictures, from the one on after which the peak has passed."""
    sums, planned = np.asarray(scan.frames).sum((1, 2), dtype=float), len(scan.frames)
    is_past, before = False, None
    for number in range(planned // MAX_PREVIEWS, planned, planned // MAX_PREVIEWS):
        rocking = np.where(np.arange(planned) < number, sums, np.nan)
        is_past = is_past or find_passed_peak(rocking) != -1
        if is_past:
            brightest = int(np.nanargmax(rocking))
            request = PreviewRequest(
                scan.name, first_frames(scan, number), brightest, number, 0.0, False, is_past_peak=True, expected=planned
            )
            before = drain_preview(request, before)
            yield number, request, before


def drain_preview(request: PreviewRequest, before: Preview | None) -> Preview:
    """Prepare a picture."""
    return prepare_part(request, PrepareConfig(), before)


def correlation(scan: Scan, truth: Truth) -> tuple[float, str]:
    """Phase a scan, and return its correlation with the true crystal, and its verdict."""
    found = drain(prepare_and_phase(scan, PrepareConfig(), PhasingConfig(method="refine", device="cpu", partial_coherence="off")))
    lab = to_lab(found, voxel_size=TRUTH)
    shape = [max(a, b) for a, b in zip(truth.rho.shape, lab.rho.shape, strict=True)]
    return align(pad(torch.from_numpy(lab.rho), shape), pad(torch.from_numpy(truth.rho), shape)).correlation, found.verdict


def measure(seed: int, limits: list[float]) -> Iterator[Row]:
    """Replay one scan, and phase it whole and as it is when told to end it, for each limit."""
    scan, truth = scan_of(seed)
    began, ends, cries = time.process_time(), dict.fromkeys(limits, len(scan.frames)), set()
    for number, request, preview in told(scan):
        for limit in limits:
            found = {advice.kind for advice in advise(request, preview.volume, preview.is_rough, None, limit)}
            cries |= found - {"enough"}
            if "enough" in found:
                ends[limit] = min(ends[limit], number)
        if max(ends.values()) < len(scan.frames):
            break
    whole = correlation(scan, truth)
    known = {len(scan.frames): whole}
    for limit, end in sorted(ends.items(), key=lambda item: -item[1]):
        known[end] = known.get(end) or correlation(first_frames(scan, end), truth)
        yield {
            "seed": seed, "enough": limit, "end": end, "planned": len(scan.frames), "cries": sorted(cries),
            "whole": whole[0], "whole_verdict": whole[1], "ended": known[end][0], "ended_verdict": known[end][1],
            "seconds": round(time.process_time() - began, 1),
        }  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return a row for each limit: scans, frames saved, correlations, and how many scans lost more than 0.01."""
    names = (
        "enough",
        "scans",
        "frames saved, median (least)",
        "whole, median",
        "ended, median",
        "largest loss",
        "lost > 0.01",
        "other",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for limit in sorted({row["enough"] for row in rows}):
        some = [row for row in rows if row["enough"] == limit]
        saved = np.array([1 - row["end"] / row["planned"] for row in some])
        whole, ended = (np.array([row[name] for row in some]) for name in ("whole", "ended"))
        loss = whole - ended
        others = ", ".join(sorted({cry for row in some for cry in row["cries"]})) or "none"
        lines.append(
            f"| {limit} | {len(some)} | {100 * np.median(saved):.0f} % ({100 * saved.min():.0f} %) | {np.median(whole):.4f} | "
            f"{np.median(ended):.4f} | {loss.max():.4f} | {int((loss > 0.01).sum())} | {others} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Compute the rows that are missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--first", type=int, default=92000)
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--enough", type=float, nargs="+", default=[ENOUGH])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args(arguments)
    rows: list[Row] = [json.loads(line) for line in given.rows.read_text().splitlines()] if given.rows.exists() else []
    done = {(row["seed"], row["enough"]) for row in rows}
    for seed in range(given.first, given.first + given.scans):
        missing = [limit for limit in given.enough if (seed, limit) not in done]
        if missing and not given.table:
            for row in measure(seed, missing):
                rows.append(row)
                with given.rows.open("a") as file:
                    print(json.dumps(row), file=file)
    print(table(rows))


if __name__ == "__main__":
    main()
