"""Send what is shown as a file: CXI, VTI, PNG, the numbers and the line profile as CSV."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

from braggshot import report
from braggshot.errors import BraggshotError
from braggshot.io import results
from braggshot.io.results import vtk, vtp
from braggshot.report import solid as solids
from braggshot.report.solid import Solid
from braggshot.series.table import summarise_result
from braggshot.viewer import choices
from braggshot.viewer.choices import Choices
from braggshot.viewer.shared import SharedFeed
from braggshot.volumes import Reconstruction

WRITERS: Mapping[str, Callable[[Path, Reconstruction], None]] = {
    "cxi": results.write,
    "vti": vtk.write,
    "vtp": vtp.write,
    "png": lambda path, found: report.write_png(path, report.Drawing(found)),
    "csv": lambda path, found: _write_text(path, table([numbers(found)])),
}
"""Kind of a file -> function that writes a reconstruction to it."""
KINDS = {
    "cxi": "CXI",
    "vti": "VTI",
    "vtp": "dislocations (VTP)",
    "png": "slide (PNG)",
    "csv": "numbers (CSV)",
    "series": "series (CSV)",
    "profile": "profile (CSV)",
}
"""Kind of what can be downloaded -> its name on the page."""


def register(server: Flask, shared: SharedFeed) -> None:
    """Answer requests for files; the query of a request is that of the address of the view."""

    def download(kind: str) -> Response:
        at = request.args.get("scan", shared.latest()[0].scans - 1, type=int)
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", shared.entry(at).name) or "crystal"
        try:
            content = _content(shared, at, kind)
        except (BraggshotError, ArithmeticError, ValueError, OSError) as error:
            return Response(f"It cannot be written: {error}", 409, mimetype="text/plain")
        if content is None:
            return Response("There is nothing of this kind to download.", 404, mimetype="text/plain")
        file = f"{name}.{kind}" if kind in WRITERS else f"{name}-{kind}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{file}"'}
        return Response(content, mimetype="application/octet-stream", headers=headers)

    server.add_url_rule("/download/<kind>", view_func=download)


def _content(shared: SharedFeed, at: int, kind: str) -> bytes | None:
    """Make the content of a file; None if there is nothing of this kind."""
    if kind == "series":
        rows = shared.latest()[1].series
        return table(rows).encode() if rows else None
    if kind == "profile":
        chosen, solid = choices.from_address(request.args), shared.solid(at)
        return None if solid is None or len(chosen.picked) < 2 else profile_table(solid, chosen).encode()
    found = shared.reconstruction(at) if kind in WRITERS else None
    if found is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"shown.{kind}"
        WRITERS[kind](path, found)
        return path.read_bytes()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def numbers(found: Reconstruction) -> dict[str, Any]:
    """List the measured values of a result in SI units, as columns of a table."""
    return {"name": found.volume.name, "method": found.method, **summarise_result(found, None)}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as CSV, with every column that any of them has; a value that is not known is an empty cell."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def profile_table(shown: Solid, chosen: Choices) -> str:
    """Write the line profile between two marked points as CSV, in the written unit."""
    name = shown.colouring(chosen.colouring)
    scale = choices.scale(shown, name, chosen)
    distance, values = solids.line(shown, chosen.view_of_slices, chosen.picked)
    columns = f"distance [{shown.unit}]", f"{name} [{scale.unit}]"
    pairs = zip(distance.tolist(), (values * scale.factor).tolist(), strict=True)
    return table([{columns[0]: at, columns[1]: "" if value != value else value} for at, value in pairs])
