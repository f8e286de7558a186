"""Settle the values that files state of an instrument: which number, in which unit, and whether it can be true.

Beamlines leave values at zero that nobody set, type them in another unit than the file says, or write them as text. Every reader
hands a raw value to `read_value`, and gets one number in SI units, or none, with a sentence about whatever is odd. A value that the
user states never comes here: it is taken as it is, or refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.constants import c, electron_volt, h

from braggshot.io.beamlines.tables import to_number
from braggshot.physics.plausibility import Range

DISAGREE = 0.01  # relative difference from which two values of the files disagree [1]
CONTRADICT = 0.05  # relative difference from which the user's value and that of the files disagree [1]
FARTHEST = 1.0  # largest distance of the direct beam from the first pixel of a detector [m]
MOVES = 5e-4  # share of it by which six in ten of a value's readings must vary over a scan for it to count as moving [1]

PREFIXES = {"p": 1e-12, "n": 1e-9, "μ": 1e-6, "u": 1e-6, "m": 1e-3, "c": 1e-2, "": 1.0, "k": 1e3, "M": 1e6}
PREFIX_WORDS = {"pico": 1e-12, "nano": 1e-9, "micro": 1e-6, "milli": 1e-3, "centi": 1e-2, "": 1.0, "kilo": 1e3, "mega": 1e6}
# Units by their symbol and by their word: kind of the unit, and its size in SI units.
SYMBOLS = {"m": ("length", 1.0), "eV": ("energy", electron_volt), "J": ("energy", 1.0), "rad": ("angle", 1.0)}
WORDS = {
    "meter": ("length", 1.0), "metre": ("length", 1.0), "micron": ("length", 1e-6), "angstrom": ("length", 1e-10),
    "angstroem": ("length", 1e-10), "ang": ("length", 1e-10), "electronvolt": ("energy", electron_volt), "joule": ("energy", 1.0),
    "radian": ("angle", 1.0), "degree": ("angle", math.pi / 180), "deg": ("angle", math.pi / 180), "pixel": ("pixel", 1.0),
    "px": ("pixel", 1.0),
}  # fmt: skip
SIGNS = {"Å": ("length", 1e-10), "A": ("length", 1e-10), "°": ("angle", math.pi / 180)}
UNSTATED = {"", "none", "1", "-", "n/a", "a.u."}
WAVELENGTHS = ("Å", "nm", "pm", "m")  # units that a wavelength may have been typed in


@dataclass(frozen=True)
class Unit:
    """Unit of measurement: its name as it is written, what it measures ("length", "energy", "angle", "pixel"), its size [SI]."""

    name: str
    kind: str
    size: float


@dataclass(frozen=True)
class Value:
    """Value that the files of a scan state.

    Parameters
    ----------
    amount : the value in SI units; None if the files state none that can be used
    source : where it is stated, such as "camdist of exp.spec"
    notes : what is odd about it, in words
    points : values at the points of the scan, if it moves during the scan; nan where one is no number [SI unit]
    """

    amount: float | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    points: np.ndarray[Any, np.dtype[np.float64]] | None = None

    @property
    def varies(self) -> bool:
        """Whether it moves during the scan."""
        return self.points is not None


def parse_unit(text: Any) -> Unit | None:
    """Return the unit that a text names, in symbols or in words, with any SI prefix; None if it names none that is known.

    >>> parse_unit("KeV").kind, parse_unit(b"micrometres").size, parse_unit("[mm]").size, parse_unit("furlong")
    ('energy', 1e-06, 0.001, None)
    """
    name = to_text(text).strip(" \t\n\0[](){}<>'\"").replace("Âµ", "μ")
    plain = unicodedata.normalize("NFKC", name)
    if plain in SIGNS:
        return Unit(name, *SIGNS[plain])
    exact = _parse_symbol(plain) or _parse_word(plain.casefold().replace(" ", "").replace("å", "a").replace("ö", "o"))
    if exact is None:
        exact = next((found for symbol in _SYMBOLS_BY_FOLD.get(plain.casefold(), ()) if (found := _parse_symbol(symbol))), None)
    return None if exact is None else Unit(name, *exact)


def _parse_symbol(name: str) -> tuple[str, float] | None:
    for symbol, (kind, size) in SYMBOLS.items():
        if name.endswith(symbol) and name.removesuffix(symbol) in PREFIXES:
            return kind, size * PREFIXES[name.removesuffix(symbol)]
    return None


def _parse_word(name: str) -> tuple[str, float] | None:
    for word in (name, name.removesuffix("s")):
        for prefix, factor in PREFIX_WORDS.items():
            if word.startswith(prefix) and word.removeprefix(prefix) in WORDS:
                kind, size = WORDS[word.removeprefix(prefix)]
                return kind, size * factor
    return None


# Symbols that were typed in other letters, such as KEV and MM; of a prefix in two cases the smaller one is meant for lengths.
_SYMBOLS_BY_FOLD = {
    folded: [prefix + symbol for symbol in SYMBOLS for prefix in PREFIXES if (prefix + symbol).casefold() == folded]
    for folded in {(prefix + symbol).casefold() for symbol in SYMBOLS for prefix in PREFIXES}
}


def to_text(value: Any) -> str:
    """Return text or bytes, or the first of an array of these, as text; "" for what holds no value."""
    if getattr(value, "shape", ()) is None:  # HDF5 data set without a value
        return ""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    return "" if value is None else str(value)


def read_numbers(raw: Any) -> tuple[np.ndarray[Any, np.dtype[np.float64]], str]:
    """Return the numbers in a raw value of a file, and the unit that stands behind the number if the value is text.

    A value may be a number, text, bytes, or an array of them; what is no number becomes nan.
    """
    try:
        array = np.asarray(raw).ravel()
    except (TypeError, ValueError):
        return np.array([]), ""
    if array.dtype.kind in "iuf":
        return array.astype(float), ""
    unit, numbers = "", []
    for item in array.tolist():
        if isinstance(item, str | bytes):
            split = re.match(r"\s*([-+]?[\d.,]+(?:[eE][-+]?\d+)?|[-+]?nan|[-+]?inf)\s*(.*?)\s*$", to_text(item), re.IGNORECASE)
            numbers.append(to_number(split[1] if "." in split[1] else split[1].replace(",", ".")) if split else math.nan)
            unit = split[2] if split else unit
        else:
            numbers.append(float(item) if isinstance(item, int | float) else math.nan)
    return np.asarray(numbers, dtype=float), unit


def read_value(known: Range, raw: Any, unit: Any, source: str, custom: str) -> Value:
    """Settle one value of a file.

    A value that nobody set (zero, nan, infinite, empty, or text that is no number) is left out. Of a negative value the magnitude
    is taken. A value that cannot be true is taken in another unit if exactly one makes it true, else it is left out. All of this
    is said in `Value.notes`. Of many values, one for each point of a scan, the median counts.

    Parameters
    ----------
    known : range of values that can be true
    raw : what the file holds; None if it holds nothing
    unit : unit that the file states, None if it states none
    source : where the value stands, such as "camdist of exp.spec"
    custom : unit that is customary there, where none is stated
    """
    if raw is None:
        return Value()
    numbers, behind = read_numbers(raw)
    notes: list[str] = []
    meant = _meant_unit(known, behind or unit, source, custom, notes)
    finite = numbers[np.isfinite(numbers)]
    number = float(np.median(finite)) if finite.size else 0.0
    if number == 0:
        return Value(None, source, (*notes, f"{source} is {_show(raw)}: it was never set, and is left out."))
    if number < 0:
        notes.append(f"{source} is {number:g} {meant.name}: it cannot be negative, so {-number:g} {meant.name} is taken.")
    number = abs(number)
    amount = to_si(known, number, meant)
    if known.holds(amount):
        return Value(amount, source, tuple(notes), _moving(known, numbers, meant))
    states = f"{source} states {number:g} {meant.name}, which is no {known.name}"
    wavelength = known.si == electron_volt and meant.kind == "length"
    others = [other for name in (WAVELENGTHS if wavelength else (known.unit, *known.slips.values())) if (other := parse_unit(name))]
    fitting = [other for other in others if known.holds(to_si(known, number, other)) and other.size != meant.size]
    if len(fitting) == 1:
        notes.append(f"{states}: {number:g} {fitting[0].name} is taken.")
        return Value(to_si(known, number, fitting[0]), source, tuple(notes), _moving(known, numbers, fitting[0]))
    return Value(None, source, (*notes, f"{states} (expected {known.low:g} to {known.high:g} {known.unit}), and is left out."))


def _moving(known: Range, numbers: np.ndarray[Any, Any], unit: Unit) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Return the values at the points of a scan [SI unit], if most of them move; where one cannot be true it is nan."""
    finite = np.abs(numbers[np.isfinite(numbers) & (numbers != 0)])
    if finite.size < 2 or not np.ptp(np.percentile(finite, (20, 80))) > MOVES * np.median(finite):  # single odd ones are no move
        return None
    points = np.array([to_si(known, abs(number), unit) if number else np.nan for number in numbers.tolist()])
    return np.where([known.holds(point) for point in points], points, np.nan)


def to_si(known: Range, number: float, unit: Unit) -> float:
    """Convert a number to the SI unit of a quantity; a photon energy may be stated as a wavelength."""
    return h * c / (number * unit.size) if known.si == electron_volt and unit.kind == "length" else number * unit.size


def _meant_unit(known: Range, stated: Any, source: str, custom: str, notes: list[str]) -> Unit:
    usual = parse_unit(custom)
    assert usual is not None
    name = to_text(stated).strip()
    if name.casefold() in UNSTATED:
        return usual
    unit = parse_unit(name)
    kinds = {"energy", "length"} if known.si == electron_volt else {"length"}
    if unit is not None and unit.kind in kinds:
        return unit
    notes.append(f"{source} has the unit {name!r}, which is not known for a {known.name}: {custom} is assumed.")
    return usual


def _show(raw: Any) -> str:
    if getattr(raw, "shape", ()) is None:
        return "empty"
    text = to_text(raw).strip() if isinstance(raw, str | bytes) else str(np.asarray(raw).ravel().tolist()[:3]).strip("[]")
    return text[:40] if text else "empty"


def choose_value(known: Range, *values: Value) -> Value:
    """Choose among values of several places in the files, the most trusted one first; say where another one differs.

    Where one place states it at each point of a scan, and it moves, these points are kept.
    """
    usable = [value for value in values if value.amount is not None]
    if not usable:
        return Value(notes=tuple(note for value in values for note in value.notes))
    taken, notes = usable[0], list(usable[0].notes)
    for other in usable[1:]:
        if differ(taken.amount, other.amount, DISAGREE):
            notes.append(f"{known.name}: {show(known, taken)} is taken, because it is trusted more than {show(known, other)}.")
    return replace(taken, notes=tuple(notes), points=next((value.points for value in usable if value.varies), None))


def differ(one: float | None, other: float | None, share: float) -> bool:
    """Tell whether two values differ by more than `share` of the first."""
    return one is not None and other is not None and abs(other - one) > share * abs(one)


def show(known: Range, value: Value) -> str:
    """Write a value with its unit and its source."""
    return f"{(value.amount or 0) / known.si:.6g} {known.unit} ({value.source})"


def explain_contradiction(known: Range, stated: float, found: Value) -> str | None:
    """Say that the value which the user states [SI] is taken, and that the files state another one; None if they agree."""
    if not differ(stated, found.amount, CONTRADICT):
        return None
    return f"{known.name}: {stated / known.si:.6g} {known.unit} is taken, because you state it; the files say {show(known, found)}."


def read_angles(raw: Any, unit: Any, source: str, noticed: list[str]) -> float | np.ndarray[Any, np.dtype[np.float64]] | None:
    """Read the positions of a motor [deg]: one, or one for each point of a scan; None, with a note, if there is no number.

    A position that is no number is nan in an array of positions.
    """
    numbers, behind = read_numbers(raw)
    name = to_text(behind or unit).strip()
    known = parse_unit(name)
    if name.casefold() not in UNSTATED and (known is None or known.kind != "angle"):
        noticed.append(f"{source} has the unit {name!r}, which is no angle: degrees are assumed.")
    degrees = numbers * (known.size * 180 / math.pi if known is not None and known.kind == "angle" else 1.0)
    if not np.isfinite(degrees).any():
        noticed.append(f"{source} is {_show(raw)}: it is left out.")
        return None
    degrees = np.where(np.isfinite(degrees), degrees, np.nan)
    return float(degrees[0]) if degrees.size == 1 else degrees


def read_pixel(raw: Any, unit: Any, source: str, pitch: float | None) -> Value:
    """Read one coordinate of the direct beam [pixel]; a length is divided by the pixel size `pitch` [m]."""
    if raw is None:
        return Value()
    numbers, behind = read_numbers(raw)
    if numbers.size != 1 or not np.isfinite(numbers[0]):
        return Value(None, source, (f"{source} is {_show(raw)}: it was never set, and is left out.",))
    known = parse_unit(behind or unit)
    number = float(numbers[0])
    if known is not None and known.kind == "length" and pitch and abs(number) * known.size < FARTHEST:
        return Value(number * known.size / pitch, source)
    if known is not None and known.kind == "length":
        return Value(
            number, source, (f"{source} states {number:g} {known.name}, which is on no detector: {number:g} pixels are taken.",)
        )
    return Value(number, source)


def choose_centre(centre: Sequence[Value], shape: Sequence[int]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return the direct beam (row, column) that the files state, or None if they state none that can be true, and remarks.

    A direct beam at (0, 0) was never set. One that lies further from the frame's centre than ten frames belongs to another detector
    or to another region of it.
    """
    notes = tuple(note for value in centre for note in value.notes)
    row, column = (value.amount for value in centre)
    if row is None or column is None:
        return None, notes
    far = [abs(at - (size - 1) / 2) > 10 * size for at, size in zip((row, column), shape[-2:], strict=True)]
    if (row, column) == (0, 0) or any(far):
        why = "it was never set" if (row, column) == (0, 0) else f"that is far outside of frames of {tuple(shape[-2:])} pixels"
        return None, (
            *notes,
            f"{centre[0].source}: the direct beam is ({row:g}, {column:g}), row and column: {why}, and it is left out.",
        )
    return (row, column), notes
