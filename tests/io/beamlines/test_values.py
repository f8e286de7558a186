"""What files state of an instrument: its unit, values that were never set or are in another unit; no crash, no silent zero."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sample_inputs import SAMPLES
from scipy.constants import electron_volt

from braggshot.errors import GeometryError
from braggshot.io.beamlines.values import choose_centre, choose_value, parse_unit, read_angles, read_pixel, read_value
from braggshot.io.registry import read
from braggshot.physics.plausibility import DISTANCE, ENERGY, PIXEL

UNITS = {
    1e-9: "nm nanometer nanometres",
    1e-6: "um µm μm micron microns micrometre micrometers UM",
    1e-3: "mm millimeter Millimetres MM [mm] mrad milliradian",
    1e-2: "cm centimetre",
    1.0: "m metre meters M rad J joule",
    1e-10: "Angstrom Å A angstroms Ångström",
    electron_volt: "eV ev electronvolts EV",
    1e3 * electron_volt: "keV KeV kev KEV",
    1e6 * electron_volt: "MeV",
    np.pi / 180: "deg degree degrees °",
}


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in UNITS.items() for name in names.split()])
def test_units_are_known_by_symbol_and_by_word(size: float, name: str) -> None:
    for text in (name, name.encode(), np.array([name.encode()]), f" {name} "):
        found = parse_unit(text)
        assert found is not None
        assert found.size == pytest.approx(size)


def test_what_is_no_unit_is_none() -> None:
    assert [parse_unit(name) for name in ("", None, "furlong", "1/m", "counts", b"\xff")] == [None] * 6
    assert parse_unit(b"\xb5m").size == 1e-6  # type: ignore[union-attr]  # latin-1


@pytest.mark.parametrize(
    ("known", "raw", "unit", "custom", "found", "said"),
    [
        (ENERGY, 9.0, None, "keV", 9e3, ""),
        (ENERGY, b"9000 eV", None, "keV", 9e3, ""),
        (ENERGY, np.array([9.0]), "keV", "eV", 9e3, ""),
        (ENERGY, 1.3776, None, "Å", 9e3, ""),
        (ENERGY, 0.13776, "nm", "Å", 9e3, ""),
        (ENERGY, 9000, None, "keV", 9e3, "9000 keV, which is no photon energy: 9000 eV is taken"),
        (ENERGY, 9, "eV", "keV", 9e3, "9 keV is taken"),
        (ENERGY, 1.3776e-10, None, "Å", 9e3, "m is taken"),
        (ENERGY, 9000, "parsec", "eV", 9e3, "the unit 'parsec', which is not known"),
        (DISTANCE, 800, "m", "m", 0.8, "800 mm is taken"),
        (DISTANCE, 0.5, None, "mm", 0.5, "0.5 m is taken"),
        (DISTANCE, "0,8", "metre", "m", 0.8, ""),
        (DISTANCE, -1.8, "m", "m", 1.8, "cannot be negative, so 1.8 m is taken"),
        (DISTANCE, -1800, "m", "m", 1.8, "1800 mm is taken"),
        (DISTANCE, 1.8, "deg", "m", 1.8, "the unit 'deg'"),
        (DISTANCE, 1e9, "m", "m", None, "is left out"),
        (PIXEL, 55, "m", "m", 55e-6, "55 µm is taken"),
        (PIXEL, 55, "microns", "m", 55e-6, ""),
        (PIXEL, 1.5, "m", "m", None, "is left out"),  # µm and mm would both do
    ],
)
def test_a_value_is_settled_and_what_is_odd_is_said(
    known: Any, raw: Any, unit: Any, custom: str, found: float | None, said: str
) -> None:  # fmt: skip
    value = read_value(known, raw, unit, "x of y", custom)
    assert (value.amount is None) == (found is None)
    if found is not None:
        assert value.amount == pytest.approx(found * known.si, rel=1e-4)
    assert said in " ".join(value.notes)
    assert bool(value.notes) == bool(said)


NEVER_SET = [0, 0.0, "0", b"0.0", float("nan"), "nan", float("inf"), [], "", "unknown", h5py.Empty("f"), [0.0], [np.nan, np.nan]]


@pytest.mark.parametrize("raw", NEVER_SET, ids=repr)
def test_a_value_that_was_never_set_is_left_out(raw: Any) -> None:
    value = read_value(DISTANCE, raw, "m", "x of y", "m")
    assert value.amount is None
    assert "was never set" in value.notes[0]


def test_two_sources_that_disagree_are_named() -> None:
    one, other = (read_value(ENERGY, number, "eV", source, "eV") for number, source in ((9000, "motor"), (8800, "header")))
    taken = choose_value(ENERGY, one, other)
    assert taken.amount == one.amount
    assert "9000 eV (motor) is taken" in taken.notes[0]
    assert "8800 eV (header)" in taken.notes[0]
    assert choose_value(ENERGY, one, read_value(ENERGY, 9001, "eV", "header", "eV")).notes == ()
    assert choose_value(ENERGY, read_value(ENERGY, 0, "eV", "motor", "eV"), other) == other


@pytest.mark.parametrize(
    ("centre", "found"),
    [((7, 4), (7, 4)), ((0, 0), None), ((np.nan, 4), None), (("", 4), None), ((1080, 1035), None), ((-30, 70), (-30, 70))],
)
def test_a_direct_beam_that_was_never_set_is_left_out(centre: Any, found: Any) -> None:
    beam, notes = choose_centre([read_pixel(raw, "pixel", "header", 55e-6) for raw in centre], (9, 24, 24))
    assert beam == found
    assert bool(notes) == (found is None)
    assert read_pixel(5.5, "mm", "header", 55e-6).amount == pytest.approx(100)
    assert read_pixel(250, "m", "header", 55e-6).amount == 250
    assert "250 pixels are taken" in read_pixel(250, "m", "header", 55e-6).notes[0]


# ----------------------------------------------------------------------------------------------- the same through every reader

MOTORS = ["Theta", "Chi", "Phi", "Delta", "Gamma", "camdist", "Energy"]


def state(format: str, path: Path, what: str, raw: Any, unit: str | None = None) -> None:
    """Write a value into the sample of a format, in place of the one that is there."""
    if format == "aps_34idc":
        line = re.search(r"#P0 .*", path.read_text())[0]  # type: ignore[index]
        words = line.split()[1:]
        words[MOTORS.index({"energy": "Energy", "distance": "camdist"}[what])] = str(raw)
        path.write_text(path.read_text().replace(line, f"#P0 {' '.join(words)}"))
    elif format == "petra_p10" and what == "energy":
        fio = path.parents[1] / "sample_00012.fio"
        fio.write_text(fio.read_text().replace("fmbenergy = 9000.5", f"fmbenergy = {raw}"))
        with h5py.File(path, "a") as file:
            del file["entry/instrument/beam/incident_wavelength"]
    else:
        names = {
            "esrf_id01": {"energy": "12.1/instrument/positioners/mononrj", "distance": "12.1/instrument/mpxgaas/distance"},
            "petra_p10": {"distance": "entry/instrument/detector/detector_distance"},
        }
        with h5py.File(path, "a") as file:
            if format == "esrf_id01" and what == "energy":
                del file["12.1/instrument/positioners_start/mononrj"]
            del file[names[format][what]]
            file[names[format][what]] = raw
            if unit:
                file[names[format][what]].attrs["units"] = unit


READERS = ("aps_34idc", "esrf_id01", "petra_p10")
CUSTOMS = {
    ("aps_34idc", "energy"): 1e-3,
    ("esrf_id01", "energy"): 1e-3,
    ("petra_p10", "energy"): 1.0,
    ("aps_34idc", "distance"): 1e3,
}


@pytest.mark.parametrize("what", ["energy", "distance"])
@pytest.mark.parametrize("format", READERS)
@pytest.mark.parametrize("raw", [0, "nan", "inf", "none"])
def test_no_reader_lets_an_unset_value_through(tmp_path: Path, format: str, what: str, raw: Any) -> None:
    path = Path(SAMPLES[format](tmp_path).path)
    state(format, path, what, raw)
    scan = read(path)
    option = {"energy": "energy_ev", "distance": "distance_m"}[what]
    assert scan.geometry is None
    assert scan.rocking_angle is not None
    assert f"do not give {option}; say {option}=..." in " ".join(scan.provenance["noticed"])
    assert read(path, **{option: {"energy": 9000.0, "distance": 0.9}[what]}).geometry is not None


# A value of 9 eV where keV is the custom, or of 9 MeV where eV is, could be no other unit, and no unit is larger than the metre.
SLIPS = [
    (format, what, factor)
    for format in READERS
    for what in ("energy", "distance")
    for factor in (1e3, 1e-3, -1.0)
    if (what == "energy" and factor != (1e3 if format == "petra_p10" else 1e-3))
    or (what == "distance" and (format == "aps_34idc" or factor != 1e-3))
]


@pytest.mark.parametrize(("format", "what", "factor"), SLIPS)
def test_every_reader_takes_the_unit_or_the_sign_that_was_meant(tmp_path: Path, format: str, what: str, factor: float) -> None:
    path = Path(SAMPLES[format](tmp_path).path)
    true = {"energy": 9000.0, "distance": 0.9}[what]
    state(format, path, what, true * CUSTOMS.get((format, what), 1.0) * factor)
    scan = read(path)
    assert scan.geometry is not None
    found = scan.geometry.energy / electron_volt if what == "energy" else scan.geometry.distance
    assert found == pytest.approx(true)
    assert any("is taken" in note for note in scan.provenance["noticed"])


@pytest.mark.parametrize("format", READERS)
def test_what_the_user_states_is_never_reinterpreted(tmp_path: Path, format: str) -> None:
    path = Path(SAMPLES[format](tmp_path).path)
    with pytest.raises(GeometryError, match="was 9 keV meant"):
        read(path, energy_ev=9)
    scan = read(path, energy_ev=12000)
    assert scan.geometry is not None
    assert scan.geometry.energy == pytest.approx(12e3 * electron_volt)
    assert any("12000 eV is taken, because you state it; the files say" in note for note in scan.provenance["noticed"])
    stated = {
        "instrument": "id01",
        "energy_ev": 12000,
        "distance_m": 3.0,
        "pixel_size_m": 55e-6,
        "angles_deg": {"eta": [17.0, 17.1]},
    }
    notes = " ".join(read(path, geometry=stated).provenance["noticed"])
    assert "12000 eV is taken, because you state it" in notes
    assert "3 m is taken, because you state it" in notes


def test_values_as_text_and_arrays_of_one(tmp_path: Path) -> None:
    path = Path(SAMPLES["esrf_id01"](tmp_path).path)
    with h5py.File(path, "a") as file:
        camera, motors = file["12.1/instrument/mpxgaas"], file["12.1/instrument/positioners"]
        texts = {"distance": "800 mm", "x_pixel_size": [55.0], "y_pixel_size": b"55 um", "beam_center_x": "4"}
        angles = {"mononrj": "13 KeV", "delta": b"614.355", "mu": np.array([0.5])}
        for group, name, raw in [*((camera, *pair) for pair in texts.items()), *((motors, *pair) for pair in angles.items())]:
            del group[name]
            group[name] = raw
        camera["x_pixel_size"].attrs["units"] = np.array([b"\xb5m"])
        motors["delta"].attrs["units"] = "mrad"
    geometry = read(path).geometry
    assert geometry is not None
    assert geometry.energy == pytest.approx(13e3 * electron_volt)
    assert geometry.distance == pytest.approx(0.8)
    assert geometry.pixel_size == pytest.approx((55e-6, 55e-6))
    assert geometry.direct_beam == (7.0, 4.0)
    assert np.rad2deg(geometry.detector[1].angle) == pytest.approx(35.2, abs=1e-3)
    assert np.rad2deg(geometry.sample[0].angle) == pytest.approx(0.5)


ODD = [np.nan, "abc", np.bytes_(b"\xff\xfe"), np.zeros(0), h5py.Empty("S3"), [1, 2, 3], 1 + 2j, np.zeros((2, 3)), None]


@pytest.mark.parametrize("format", ["esrf_id01", "petra_p10"])
def test_no_entry_of_another_kind_ends_in_a_crash(tmp_path: Path, format: str) -> None:
    """Each data set of the header in turn holds something odd, None a group; the unit of each is odd too."""
    path = Path(SAMPLES[format](tmp_path).path)
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.ndim < 2 else None)
    whole = path.read_bytes()
    for number, name in enumerate(names):
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            del file[name]
            item = file.create_group(name) if (odd := ODD[number % len(ODD)]) is None else file.create_dataset(name, data=odd)
            item.attrs["units"] = [b"\xb5m", np.array([b"mm"]), np.array([]), 3.0][number % 4]
        assert read(path).frames.shape[0] > 1


def test_a_position_without_end_is_no_number():
    angles = read_angles([17.0, float("inf"), float("nan"), 17.2], "deg", "eta", noticed := [])
    assert np.array_equal(angles, [17.0, np.nan, np.nan, 17.2], equal_nan=True)
    assert noticed == []
