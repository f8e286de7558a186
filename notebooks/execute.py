"""Run the notebooks and keep what they show: ``python notebooks/execute.py [NAME ...]``, after ``make demo``.

They run in a folder of their own, so that no path of this machine comes into them. Pages with scripts are left out of the saved
notebooks, because they are large; their pictures stay.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NAMES = ("quickstart", "raw_scan", "series", "live")
_PATIENCE = 1200  # longest time that a cell may take [s]


def run(name: str, folder: Path, parameters: str = "") -> Any:
    """Run a notebook in `folder` and return it; code in `parameters` runs after the cell with this tag, which it may overrule."""
    book = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = next(cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
    given = chosen.source
    chosen.source = f"{given}\n{parameters}"
    how = {"timeout": _PATIENCE, "coalesce_streams": True, "record_timing": False, "resources": {"metadata": {"path": str(folder)}}}
    NotebookClient(book, kernel_name="python3", **how).execute()
    chosen.source = given
    return book


def without_pages(book: Any) -> Any:
    """Leave pages inside a notebook out of what it shows."""
    for cell in book.cells:
        for output in cell.get("outputs", ()):
            if "<iframe" in output.get("data", {}).get("text/html", ""):
                del output["data"]["text/html"]
    book.metadata.pop("widgets", None)
    return book


def main(names: list[str]) -> None:
    """Run notebooks, and write them with what they show."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "demo-output").symlink_to(FOLDER.parent / "demo-output")
        for name in names or NAMES:
            book = without_pages(run(name, Path(place) / "notebooks"))
            nbformat.write(book, FOLDER / f"{name}.ipynb")
            print(name, f"{(FOLDER / f'{name}.ipynb').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
