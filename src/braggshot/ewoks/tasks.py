"""Define the task of Ewoks that phases a scan; the only file that imports ewokscore.

::

    ewoks execute examples/ewoks.json -pn reconstruct:scan_file=sample.h5 -pn reconstruct:scan=12 -pn reconstruct:output=out.cxi
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ewokscore import Task

from braggshot import config, pipeline
from braggshot.errors import ConfigError
from braggshot.output import summary, write


class Reconstruct(  # type: ignore[call-arg]  # mypy does not know ewokscore
    Task,  # type: ignore[misc]
    input_names=["scan_file", "output"],
    optional_input_names=["scan", "format", "settings"],
    output_names=["files", "verdict", "reasons", "summary"],
):
    """Turn a raw scan into a crystal, as ``braggshot reconstruct`` does.

    Inputs
    ------
    scan_file : file or folder of the scan
    output : a .cxi file, or a folder; the settings ``output.formats`` say what it gets
    scan : number of the scan, in a file with several
    format : name of the reader; without it the content of the file decides
    settings : nested settings, or the path of a TOML file of them

    Outputs
    -------
    files : paths of what was written
    verdict, reasons : how far to trust the crystal, and why
    summary : what ``braggshot reconstruct --json`` prints

    Raises
    ------
    BraggshotError : for every error that the user can cause; the message is one line. A crystal that cannot be trusted is no error.
    """

    def run(self) -> None:
        """Phase the scan and write its files."""
        source, place = Path(self.inputs.scan_file), Path(self.inputs.output)
        given = self.get_input_value("settings", {}) or {}
        if isinstance(given, str | Path):
            given = config.read_toml(Path(given))
        if not isinstance(given, Mapping):
            raise ConfigError(f"settings: expected nested settings or a TOML file, found {type(given).__name__}.")
        number = self.get_input_value("scan", None)
        stated: dict[str, Any] = {} if number is None else {"input": {"scan": number}}
        settings = pipeline.resolve(config.merge(given, stated))
        found = pipeline.drain(pipeline.run(source, settings, self.get_input_value("format", None) or None, place=place))
        files = write(found, place, settings.output.formats)
        self.outputs.files = [str(file) for file in files]
        self.outputs.verdict, self.outputs.reasons = found.verdict, list(found.reasons)
        self.outputs.summary = summary(found, str(source), str(place))
