"""The main job, by composition only: read, prepare, phase, write.

>>> import braggshot                                          # doctest: +SKIP
>>> result = braggshot.reconstruct("scan.cxi", seed=1)        # doctest: +SKIP
>>> result.save("out/")                                       # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar

from braggshot import config
from braggshot.crystal_frame import StrainConfig, numbers, strain_map
from braggshot.errors import DataError, OutputError
from braggshot.io import registry
from braggshot.iterative.iterate import Progress
from braggshot.phasing.strategies import PhasingConfig, Trained, phase
from braggshot.phasing.uncertainty import with_half_data, with_photon_noise
from braggshot.prepare import PrepareConfig, prepare
from braggshot.volumes import Facet, Reconstruction, Scan, StrainMap

P = TypeVar("P")
T = TypeVar("T")
OutputFormat = Literal["cxi", "vti", "png", "html", "pdf", "npz", "cohere", "cdiutils"]


@dataclass(frozen=True)
class OutputConfig:
    """What is written into an output folder.

    Parameters
    ----------
    formats : any of "cxi", "vti", "png", "html", "pdf" (the strain as a figure for a paper), "npz", and "cohere" or "cdiutils" for
        those programs
    """

    formats: tuple[OutputFormat, ...] = ("cxi", "vti", "png", "html")


@dataclass(frozen=True)
class Settings:
    """Every setting of the main job, one table per stage; `input` goes to the reader as it stands."""

    input: dict[str, Any] = field(default_factory=dict)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    phasing: PhasingConfig = field(default_factory=PhasingConfig)
    strain: StrainConfig = field(default_factory=StrainConfig)
    output: OutputConfig = field(default_factory=OutputConfig)


@dataclass(frozen=True)
class Result(Reconstruction):
    """A reconstruction that knows how to leave the program.

    Parameters
    ----------
    strain : what it says about the material; None without geometry or without a crystal
    """

    strain: StrainMap | None = None

    def save(self, path: str | Path, formats: tuple[OutputFormat, ...] = OutputConfig().formats) -> list[Path]:
        """Write one file (by its ending) or, into a folder, each of `formats`; returns what was written.

        Raises
        ------
        OutputError : if a file cannot be written; nothing half-written stays.
        """
        return write(self, path, formats)

    def show(self) -> Path:
        """Open the report in the web browser."""
        import tempfile
        import webbrowser

        page = Path(tempfile.mkdtemp(prefix="braggshot-")) / f"{self.volume.name}.html"
        write(self, page)
        webbrowser.open(page.as_uri())
        return page


def load(path: str | Path, format: str | None = None, **options: Any) -> Scan:
    """Open a scan; see `braggshot.io.registry.read`."""
    return registry.read(path, format, **options)


def load_result(path: str | Path) -> Result:
    """A result CXI that was written before, with its strain map.

    Raises
    ------
    FormatError : if the file holds none.
    """
    from braggshot.io import results

    return Result(**vars(results.read(path)), strain=results.read_strain(path))


def reconstruct(
    source: Scan | str | Path,
    settings: Settings | Mapping[str, Any] | None = None,
    *,
    format: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **phasing: Any,
) -> Result:
    """Raw scan to crystal.

    Parameters
    ----------
    source : a scan, or the path of one
    settings : nested settings as in a TOML file, such as ``{"input": {"scan": 54}}``
    format : of the file, where looking at it does not settle that
    on_progress : called after each iteration
    phasing : settings of the stage ``phasing``, such as ``seed=1`` or ``method="refine"``; also ``recipe=...``. ``starts`` and
        ``recipe`` are those of iterative phasing, and imply it

    Raises
    ------
    BraggshotError : anything that the user can mend, in one line.
    """
    resolved = settings if isinstance(settings, Settings) else resolve(settings or {})
    if phasing:
        resolved = resolve(config.merge(config.dump(resolved), _phasing_table(phasing)))
    return finish(run(source, resolved, format), on_progress)


def finish(running: Generator[P, None, T], on_progress: Callable[[P], None] | None = None) -> T:
    """Run a job to its end, showing each iteration to `on_progress`; its value."""
    try:
        while True:
            progress = next(running)
            if on_progress is not None:
                on_progress(progress)
    except StopIteration as finished:
        value: T = finished.value
        return value


def resolve(settings: Mapping[str, Any]) -> Settings:
    """Nested settings to `Settings`, every name and value checked."""
    return config.resolve(Settings, settings)


def _phasing_table(phasing: Mapping[str, Any]) -> dict[str, Any]:
    table = dict(phasing)
    if "recipe" in table:
        table["refine"] = {"recipe": table.pop("recipe")}
    return {"phasing": implied(table)}


def implied(phasing: Mapping[str, Any]) -> dict[str, Any]:
    """Who asks for random starts or their recipe, and for no method, means the one that has them."""
    wants = {"starts", "refine"} & set(phasing)
    return {"method": "iterative", **phasing} if wants else dict(phasing)


def run(
    source: Scan | str | Path, settings: Settings, format: str | None = None, network: Trained | None = None
) -> Generator[Progress, None, Result]:
    """The main job as a generator that its caller owns; its value is the result. A `network` in memory need not be loaded."""
    began = time.perf_counter()
    scan = source if isinstance(source, Scan) else registry.read(source, format, **settings.input)
    read = time.perf_counter()
    volume = prepare(scan, settings.prepare)
    prepared = time.perf_counter()
    found = yield from phase(volume, settings.phasing, network=network)
    return (yield from completed(found, settings, {"read": read - began, "prepare": prepared - read}))


def completed(found: Reconstruction, settings: Settings, seconds: Mapping[str, float]) -> Generator[Progress, None, Result]:
    """A phased crystal with its uncertainty, resolution and strain, its settings, and the `seconds` that led there."""
    phased = time.perf_counter()
    if settings.strain.half_data and found.support.any():
        found = yield from with_half_data(found, settings.phasing)
    if settings.strain.noise_samples and found.support.any():
        found = yield from with_photon_noise(found, settings.strain.noise_samples, settings.phasing.seed)
    strain = _strain(found, settings.strain)
    spent = {**seconds, **found.seconds, "strain": time.perf_counter() - phased}
    return Result(
        **{f.name: getattr(found, f.name) for f in dataclasses.fields(found) if f.name not in {"seconds", "configuration"}},
        configuration={**config.dump(settings), "program": {"name": "braggshot", **versions()}},
        seconds={**spent, "total": sum(spent.values())},
        strain=strain,
    )


def _strain(found: Reconstruction, settings: StrainConfig) -> StrainMap | None:
    """The strain map, or none: a failed phasing may leave no crystal to strain, and the verdict says so already."""
    if found.volume.q_bragg is None:
        return None
    try:
        return strain_map(found, settings)
    except DataError:
        return None


@cache
def versions() -> dict[str, str]:
    """What ran: braggshot, Python and the libraries whose numbers could differ."""
    return {"version": version("braggshot"), "python": platform.python_version()} | {
        name: version(name) for name in ("torch", "numpy", "scipy", "h5py")
    }


def write(result: Reconstruction, path: str | Path, formats: tuple[OutputFormat, ...] = OutputConfig().formats) -> list[Path]:
    """One file by its ending, or each of `formats` as <name>.<ending> in a folder; each file appears whole or not at all."""
    strain = result.strain if isinstance(result, Result) else None
    target = Path(path)
    if target.suffix in {".cxi", ".vti", ".png", ".html", ".pdf", ".npz"}:
        return [_writer(target.suffix[1:], strain)(target, result)]
    return [_writer(name, strain)(_place(target, result.volume.name, name), result) for name in formats]


def _place(folder: Path, name: str, kind: str) -> Path:
    return folder / f"{name}_{kind}" if kind in {"cohere", "cdiutils"} else folder / f"{name}.{kind}"


def _writer(kind: str, strain: StrainMap | None = None) -> Callable[[Path, Reconstruction], Path]:
    from braggshot import report
    from braggshot.io import results
    from braggshot.io.results import cdiutils, cohere, npz, vtk

    writers: dict[str, Callable[[Path, Reconstruction], Any]] = {
        "cxi": partial(results.write, strain=strain),
        "vti": partial(vtk.write, strain=strain),
        "png": partial(report.write_png, strain=strain),
        "html": partial(report.write_report, strain=strain),
        "pdf": partial(report.write_strain_figure, strain=strain),
        "npz": npz.write,
        "cohere": cohere.export,
        "cdiutils": cdiutils.export,
    }

    def writer(path: Path, result: Reconstruction) -> Path:
        writers[kind](path, result)
        return path

    return writer


def check_writable(path: str | Path) -> None:
    """Find out before the long work whether the result can be written.

    Raises
    ------
    OutputError : if the folder cannot be made or written to.
    """
    target = Path(path)
    folder = target.parent if target.suffix else target
    probe = folder / ".braggshot-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{folder}: cannot write there ({error.strerror or error}); choose another place with -o.") from error


def _finite(value: float) -> float | None:
    """JSON knows no NaN."""
    return value if math.isfinite(value) else None


def _facet(facet: Facet) -> dict[str, Any]:
    name = None if facet.hkl is None else list(facet.hkl)
    strain, normal = _finite(facet.strain), facet.normal.tolist()
    return {"hkl": name, "area_m2": facet.area, "share": facet.share, "strain": strain, "normal": normal}


def _best_resolution(result: Result) -> dict[str, Any]:
    """The most telling measure, and what it is."""
    measured = {"prtf": result.quality.resolution} if result.strain is None else result.strain.resolution
    method, length = next(iter(measured.items()), (None, None))
    return {"resolution_m": length, "resolution_method": method if length is not None else None}


def summary(result: Result, source: str, output: str) -> dict[str, Any]:
    """The one JSON object that ``--json`` prints."""
    oversampling = result.volume.oversampling
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
        **_best_resolution(result),
        "strain": None if result.strain is None else numbers(result.strain),
        "facets": [] if result.strain is None else [_facet(facet) for facet in result.strain.facets],
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
    }
