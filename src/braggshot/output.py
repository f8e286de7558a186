"""Write results to files and folders, but never over the measured files.

>>> import braggshot                                          # doctest: +SKIP
>>> result = braggshot.load_result("scan_result.cxi")         # doctest: +SKIP
>>> result.save("out/", formats=("png", "vti"))               # doctest: +SKIP
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from braggshot.display import in_notebook
from braggshot.errors import DataError, OutputError
from braggshot.io.atomic import check_room, file_name, refuse_target, sweep
from braggshot.physics.strain import summary_table
from braggshot.volumes import (
    BoolArray,
    ComplexArray,
    DiffractionVolume,
    Dislocation,
    Facet,
    FloatArray,
    Quality,
    Reconstruction,
    Scan,
    StrainMap,
    Verdict,
)

if TYPE_CHECKING:
    from braggshot.report import Drawing
    from braggshot.report.planes import InlineFigure
    from braggshot.report.solid import Solid

Quantity = Literal["strain", "displacement", "phase", "amplitude", "d_spacing", "lattice_parameter", "sigma"]
OutputFormat = Literal["cxi", "vti", "vtp", "png", "html", "pdf", "npz", "cohere", "cdiutils"]
FOLDERS = {"cohere", "cdiutils"}  # formats that are written as a folder, not as a file


@dataclass(frozen=True)
class OutputConfig:
    """Settings of what is written into an output folder.

    Parameters
    ----------
    formats : any of "cxi", "vti", "vtp" (dislocations; comes with "vti" where there are any), "png", "html", "pdf" (the strain as a
        figure for a paper), "npz", and "cohere" or "cdiutils" for the programs of these names
    force : replace also files that braggshot did not write
    """

    formats: tuple[OutputFormat, ...] = ("cxi", "vti", "png", "html")
    force: bool = False


@dataclass(frozen=True, repr=False)
class Inline:
    """Something that a notebook shows, as a page with scripts where that can run, else as a picture; and plotly.js' figure."""

    html: str
    png: bytes
    figure: Mapping[str, Any]

    def __repr__(self) -> str:
        return "the crystal in space; a notebook shows it"

    def _repr_html_(self) -> str:
        return self.html

    def _repr_png_(self) -> bytes:
        return self.png


@dataclass(frozen=True, repr=False)
class Result:
    """A full record of a reconstruction for users, with its main values and with methods to show it and to write it to files."""

    reconstruction: Reconstruction

    @property
    def verdict(self) -> Verdict:
        """Verdict on the reconstruction, which says how far to trust it."""
        return self.reconstruction.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons for the verdict, in words."""
        return self.reconstruction.reasons

    @property
    def rho(self) -> ComplexArray:
        """Complex object (z, y, x), the crystal, as complex64 [sqrt(photons)]."""
        return self.reconstruction.rho

    @property
    def support(self) -> BoolArray:
        """Support (z, y, x), True inside the crystal."""
        return self.reconstruction.support

    @property
    def basis(self) -> FloatArray | None:
        """Matrix whose columns are the voxel edges [m], components (z, y, x); None without geometry."""
        return self.reconstruction.basis

    @property
    def quality(self) -> Quality:
        """Measures of how well the crystal explains the counts."""
        return self.reconstruction.quality

    @property
    def volume(self) -> DiffractionVolume:
        """Corrected counts from which the crystal was reconstructed."""
        return self.reconstruction.volume

    @property
    def strain(self) -> StrainMap | None:
        """Displacement and strain of the crystal; None without geometry or without a crystal."""
        return self.reconstruction.strain

    @property
    def seconds(self) -> Mapping[str, float]:
        """Time of each stage [s]."""
        return self.reconstruction.seconds

    @property
    def configuration(self) -> Mapping[str, Any]:
        """Every setting of the reconstruction, defaults included."""
        return self.reconstruction.configuration

    def save(self, path: str | Path, formats: tuple[OutputFormat, ...] = OutputConfig().formats, force: bool = False) -> list[Path]:
        """Write the result into one file, or into a folder; return the paths of what was written.

        The ending of a file tells its format. A folder receives one file, or one folder, for each of `formats`. With `force` it
        replaces also files that braggshot did not write.

        Raises
        ------
        OutputError : if a file cannot be written, or would replace the measurement; nothing half-written stays.
        """
        check_writable(path, inputs_of(self.volume.provenance), [self.volume.name], formats, force)
        return write(self.reconstruction, path, formats)

    def __repr__(self) -> str:
        """Say the verdict, the reasons and the main numbers within ten lines."""
        from braggshot.report import text

        facts = [f"{fact.name} {fact.value}" for fact in text.quality_facts(self.reconstruction)]
        reasons = [f"    {textwrap.shorten(reason, 106, placeholder=' …')}" for reason in self.reasons[:4]]
        numbers = textwrap.wrap(", ".join(facts), 110, initial_indent="    ", subsequent_indent="    ")
        return "\n".join([f"Result of {self.volume.name}: {self.verdict}", *reasons, *numbers][:10])

    def _repr_html_(self) -> str:
        """Show a notebook the verdict with its reasons, the slide, and the numbers."""
        from braggshot.report import html_cell

        return html_cell.cell(self._drawing)

    @cached_property
    def _drawing(self) -> Drawing:
        """Pictures of the result, drawn once."""
        from braggshot.report import Drawing

        return Drawing(self.reconstruction)

    def plot(
        self, quantity: Quantity = "strain", *, unit: str | None = None, plane: str | None = None, at: float | None = None
    ) -> InlineFigure:
        """Draw a quantity on planes through the crystal, with axes in nm and a colour bar; returns a matplotlib figure.

        Parameters
        ----------
        quantity : "strain", "displacement", "phase", "amplitude", "d_spacing", "lattice_parameter" or "sigma" (one sigma of the
            strain), where it is known
        unit : unit of the colour bar, such as "%" for a strain or "nm" for a displacement; None takes the usual one
        plane : "xy", "xz" or "yz"; None draws all three
        at : position of the plane along its normal, from the centre of the grid [nm]; None takes the middle of the crystal

        Raises
        ------
        ConfigError : for a quantity that the crystal does not have, or a unit or plane that is not known.
        """
        from braggshot.report import planes

        return planes.plane_figure(self._solid(), quantity, unit, plane, at)

    def view(self, quantity: Quantity = "strain") -> Inline:
        """Return the crystal to turn, cut and colour, for a notebook to show; `quantity` colours it at first."""
        from braggshot.report import html_crystal, interactive, planes

        shown = self._solid()
        figure = interactive.figure(shown, quantity)
        still = planes.surface_figure(self._drawing, quantity)
        return Inline(html_crystal.frame(figure, self.volume.name), still._repr_png_(), figure)

    def _solid(self) -> Solid:
        """Return the crystal in space; raise `DataError` if there is none."""
        if self._drawing.solid is None:
            raise DataError(f"{self.volume.name}: there is no crystal to show, the support is empty or the amplitude is zero.")
        return self._drawing.solid

    def show(self) -> Path | None:
        """Show the result: in a notebook below the cell, else as the report in the web browser; return the report's path."""
        if in_notebook():
            from IPython.display import display

            display(self)  # type: ignore[no-untyped-call]
            return None
        import tempfile
        import webbrowser

        page = Path(tempfile.mkdtemp(prefix="braggshot-")) / f"{self.volume.name}.html"
        write(self.reconstruction, page)
        webbrowser.open(page.as_uri())
        return page


def load_result(path: str | Path) -> Result:
    """Read a result from a CXI file that braggshot has written.

    Raises
    ------
    FormatError : if the file holds no result.
    """
    from braggshot.io import results

    return Result(results.read(path))


def write(reconstruction: Reconstruction, path: str | Path, formats: Sequence[OutputFormat] = OutputConfig().formats) -> list[Path]:
    """Write a reconstruction into one file, or into a folder; return the paths of what was written.

    The ending of a file tells its format. A folder receives one file, or one folder, for each of `formats`. A file appears whole or
    not at all.

    Raises
    ------
    OutputError : if a file cannot be written, or is one of the measured files; the other files are written before it is raised.
    """
    from braggshot.io import results
    from braggshot.io.results import cdiutils, cohere, npz, vtk, vtp

    targets = targets_of(path, reconstruction.volume.name, formats)
    beside = targets_of(path, reconstruction.volume.name, ("vtp",))
    has_lines = reconstruction.strain is not None and bool(reconstruction.strain.lines)
    if "vti" in targets and "vtp" in beside and (has_lines or beside["vtp"].exists()):  # lines of an earlier result must not stay
        targets |= beside if reconstruction.strain is not None else {}
    for target in targets.values():
        refuse_target(target, inputs_of(reconstruction.volume.provenance))
    writers: dict[str, Callable[[Path], Any]] = {
        "cxi": lambda place: results.write(place, reconstruction),
        "vti": lambda place: vtk.write(place, reconstruction),
        "vtp": lambda place: vtp.write(place, reconstruction),
        "npz": lambda place: npz.write(place, reconstruction),
        "cohere": lambda place: cohere.export(place, reconstruction),
        "cdiutils": lambda place: cdiutils.export(place, reconstruction),
    }
    if not targets.keys() <= writers.keys():
        from braggshot import report  # only here, because the libraries that draw take a second to load

        drawing = report.Drawing(reconstruction)  # shared by all pictures
        pictures = {"png": report.write_png, "html": report.write_report, "pdf": report.write_strain_figure}
        writers |= {kind: partial(draw, drawing=drawing) for kind, draw in pictures.items()}
    failed: dict[str, OutputError] = {}
    for name, target in targets.items():
        try:
            writers[name](target)
        except OutputError as error:  # such as a figure of the strain without strain; the other files are not lost with it
            failed[name] = error
    if failed:
        written = ", ".join(str(target) for name, target in targets.items() if name not in failed)
        raise OutputError(" ".join(map(str, failed.values())) + (f" Written all the same: {written}." if written else ""))
    return list(targets.values())


def is_file_target(path: str | Path) -> bool:
    """Tell whether an output path means one file and not a folder; the ending of the path decides."""
    return Path(path).suffix in {".cxi", ".vti", ".vtp", ".png", ".html", ".pdf", ".npz"}


def targets_of(path: str | Path, name: str, formats: Iterable[OutputFormat]) -> dict[str, Path]:
    """List the files of an output by format: one for each of `formats` if `path` is a folder, or only `path` if it names a file.

    Parameters
    ----------
    path : a file, told by its ending, or a folder
    name : name of the volume, with which the names of files in a folder begin
    formats : formats of the files in a folder
    """
    target = Path(path)
    if is_file_target(target):
        return {target.suffix[1:]: target}
    name = file_name(name)
    return {kind: target / (f"{name}_{kind}" if kind in FOLDERS else f"{name}.{kind}") for kind in formats}


def inputs_of(provenance: Mapping[str, Any]) -> list[Path]:
    """List the files that a scan was read from: the scan file, and those that the reader's options name (dark, flat, mask, ...)."""
    named = [provenance.get("path"), *provenance.get("paths", ()), *dict(provenance.get("options") or {}).values()]
    texts = [Path(value) for value in named if isinstance(value, str | Path)]
    # Paths of the files in the options, in case they are given relative to the folder of the scan file.
    beside = [texts[0].parent / path for path in texts[1:]]
    return [path for path in (*texts, *beside) if path.is_file()]


def files_of(scan: Scan) -> list[Path]:
    """List every file that a scan is read from, also the files of its frames."""
    return [*inputs_of(scan.provenance), *getattr(scan.frames, "paths", ())]


def check_writable(
    path: str | Path,
    inputs: Iterable[str | Path] = (),
    names: Iterable[str] = ("",),
    formats: Sequence[OutputFormat] = (),
    force: bool = True,
) -> None:
    """Check before phasing that results can be written, and remove what a killed run left half-written.

    Parameters
    ----------
    path, inputs : file or folder of the output; files that are read, and must stay as they are
    names, formats : names of the volumes, and formats of the files in a folder, as far as they are known
    force : replace also files that braggshot did not write

    Raises
    ------
    OutputError : if the folder cannot be made or written to, its disk is full, or a file to be written must not be replaced.
    """
    target, read = Path(path), list(inputs)
    for name in names:
        for file in targets_of(target, name, (*formats, *(("vtp",) if "vti" in formats else ()))).values():
            refuse_target(file, read, force)
    folder = target.parent if is_file_target(target) else target
    probe = folder / f".braggshot-probe-{uuid4().hex}"  # a name of its own: another program may begin there at the same time
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot write there ({error.strerror or error}); choose another place.") from error
    check_room(folder, 0, "a result")
    sweep(folder)


def summary(result: Reconstruction, source: str, output: str) -> dict[str, Any]:
    """Make the summary of a result that ``--json`` prints as a JSON object."""
    oversampling, agreeing = result.volume.oversampling, result.quality.agreeing
    return {
        "input": source,
        "output": output,
        "method": result.method,
        "network": result.network,
        "shape": list(result.rho.shape),
        "oversampling": None if oversampling is None else [round(value, 3) for value in oversampling],
        "chi2": result.quality.chi2,
        "chi2_coherent": result.quality.chi2_coherent,
        "r_factor": result.quality.r_factor,
        "llk_free": _finite(result.quality.llk_free),
        "unseen": result.quality.unseen,
        "psf": result.psf,
        "agreement": list(result.quality.agreement),
        "agreeing": None if agreeing is None else {"same": agreeing.same, "others": agreeing.others, "stuck": agreeing.stuck},
        **_best_resolution(result),
        "strain": None if result.strain is None else summary_table(result.strain),
        "facets": [] if result.strain is None else [_facet(facet) for facet in result.strain.facets],
        "dislocations": [] if result.strain is None else [_line(line) for line in result.strain.lines],
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "noticed": list(result.volume.provenance.get("noticed", ())),
        "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
    }


def _finite(value: float) -> float | None:
    """Replace NaN and infinity, which JSON does not know, by None."""
    return value if math.isfinite(value) else None


def _facet(facet: Facet) -> dict[str, Any]:
    name = None if facet.hkl is None else list(facet.hkl)
    strain, normal = _finite(facet.strain), facet.normal.tolist()
    return {"hkl": name, "area_m2": facet.area, "share": facet.share, "strain": strain, "normal": normal}


def _line(line: Dislocation) -> dict[str, Any]:
    return {"length_m": line.length, "g_dot_b": line.winding, "confidence": line.confidence, "closed": line.is_closed}


def _best_resolution(result: Reconstruction) -> dict[str, Any]:
    """Return the resolution [m] by the most reliable of the methods that gave one, and the name of that method."""
    measured = {"prtf": result.quality.resolution} if result.strain is None else result.strain.resolution
    method, length = next(iter(measured.items()), (None, None))
    return {"resolution_m": length, "resolution_method": method if length is not None else None}
