"""What is planned holds for the scan: by hand, by sums over a crystal, and by what the program measures afterwards."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from command_line import run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy import constants, optimize

from braggshot.cli.plan import as_record, describe
from braggshot.crystals.direct_sum import rocking_scan
from braggshot.errors import BraggshotError, ConfigError, GeometryError
from braggshot.io.beamlines.instruments import INSTRUMENTS
from braggshot.physics import exposure
from braggshot.physics.geometry import KEV, sample_rotation, wavelength
from braggshot.physics.lattice import Lattice, cubic
from braggshot.physics.sampling import oversampling
from braggshot.plan import Wish, make_plan, simulate
from braggshot.prepare.detectors import DETECTORS, describe_detector
from braggshot.report.plan import plan_slide

GOLD = Wish(
    energy=9 * KEV, distance=0.5, pixel_size=55e-6, shape=(256, 256), size=(300e-9,) * 3, lattice=cubic(4.078e-10),
    reflection=(1, 1, 1), instrument="34idc",
)  # fmt: skip
COMMAND = ["plan", "--energy-kev", "9", "--distance-m", "0.5", "--detector", "timepix", "--size-nm", "300", "--lattice", "4.078",
           "--hkl", "111", "--instrument", "34idc"]  # fmt: skip


def test_gold_at_34idc_is_what_a_pocket_calculator_says():
    made = make_plan(GOLD)
    assert made.spacing == pytest.approx(4.078e-10 / math.sqrt(3))
    assert math.degrees(made.bragg_angle) == pytest.approx(17.011, abs=1e-3)  # asin(1.37760 / 2 / 2.35443)
    assert made.motors == pytest.approx({"Theta": 17.011, "Delta": 34.022}, abs=1e-3)
    assert made.oversampling[1:] == pytest.approx([1.3776e-10 * 0.5 / (55e-6 * 300e-9)] * 2, rel=1e-4)  # 4.17
    assert made.step_range[1] == pytest.approx(2.35443e-10 / (3 * 300e-9), rel=1e-3)
    assert made.distance_range[0] == pytest.approx(3 * 55e-6 * 300e-9 / 1.3776e-10, rel=1e-3)
    assert made.step <= made.step_range[1]
    assert made.binning == (1, 1, 1)
    assert math.degrees(made.rocking_width) == pytest.approx(math.degrees(0.886 * 2.35443e-10 / 300e-9), rel=1e-3)
    assert made.transverse == pytest.approx(1.3776e-10 * 50 / 100e-6, rel=1e-4)
    assert made.path == pytest.approx(2 * math.sin(made.bragg_angle) * 300e-9, rel=1e-6)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_instrument_puts_the_reflection_on_the_middle_of_its_detector(name):
    made = make_plan(replace(GOLD, instrument=name, energy=20 * KEV))
    assert np.linalg.norm(made.q) == pytest.approx(2 * math.pi / made.spacing, rel=1e-9)
    assert (made.offset is None) == any(axis.axis[0] in "xy" for axis in INSTRUMENTS[name].detector)
    at_zero = sample_rotation(made.geometry, made.window[0] // 2).T @ made.q
    assert at_zero[0] == pytest.approx(0, abs=1e-9 * np.linalg.norm(made.q))  # the planes lie along the beam


@pytest.mark.parametrize(("name", "motors"), [("id01", {"eta", "delta"}), ("p10", {"om", "del"}), ("34idc", {"Theta", "Delta"})])
def test_the_plane_is_vertical_where_it_can_be(name, motors):
    assert set(make_plan(replace(GOLD, instrument=name)).motors) == motors


def test_another_circle_may_rock():
    assert make_plan(replace(GOLD, instrument="id01", rock="mu")).motors == pytest.approx({"mu": 17.011, "nu": 34.022}, abs=1e-3)


def test_stated_circles_are_an_instrument():
    circles = ((("eta", "x-"), ("phi", "y-")), (("nu", "y-"), ("delta", "x-")))
    one, other = make_plan(replace(GOLD, instrument="", circles=circles)), make_plan(replace(GOLD, instrument="id01"))
    assert np.allclose(one.basis, other.basis)


def test_a_cell_of_any_system_gives_its_spacing():
    cell = Lattice((3e-10, 3e-10, 5e-10), (math.pi / 2, math.pi / 2, 2 * math.pi / 3))
    made = make_plan(replace(GOLD, lattice=cell, reflection=(1, 0, 1)))
    assert made.spacing == pytest.approx((4 / 3 / 3e-10**2 + 1 / 5e-10**2) ** -0.5)


def summed(instrument, shape):
    """Return a plan for an ellipsoid, and its counts, summed pixel by pixel: no basis and no transform is shared with the plan."""
    size = (180e-9, 240e-9, 210e-9)
    energy = (20 if instrument == "id27" else 9) * KEV
    wish = replace(GOLD, instrument=instrument, size=size, energy=energy, distance=0.3 * energy / (9 * KEV), shape=shape[1:])
    made = make_plan(wish)
    offsets = np.stack(np.meshgrid(*[np.arange(22) - 11] * 3, indexing="ij"))
    body = ((offsets**2).sum(0) <= 10.5**2).astype(complex)
    planned = made.geometry
    rocked = next(circle.angle for circle in planned.sample if np.ndim(circle.angle))
    angles = rocked[rocked.size // 2] + made.step * (np.arange(shape[0]) - shape[0] // 2)
    geometry = replace(planned, sample=tuple(replace(c, angle=angles) if np.ndim(c.angle) else c for c in planned.sample))
    counts = np.abs(rocking_scan(body, [side / 21 for side in size], made.q, geometry, shape, shape[0] // 2)) ** 2
    return made, counts / counts.max()


@pytest.mark.parametrize("instrument", ["34idc", "id01", "id27"])
def test_the_fringes_of_a_crystal_are_as_wide_as_planned(instrument):
    made, counts = summed(instrument, (21, 21, 21))
    index = np.arange(21) - 10
    for line, planned in zip((counts[:, 10, 10], counts[10, :, 10], counts[10, 10]), made.oversampling, strict=True):

        def misfit(value, line=line):  # from the pattern of an ellipsoid
            x = np.pi * np.where(index == 0, 1e-2, index) / value
            return float((((3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2 - line) ** 2).sum())

        assert optimize.minimize_scalar(misfit, (0.9 * planned, planned)).x == pytest.approx(planned, rel=0.02)


def test_the_planned_oversampling_is_what_a_scan_is_measured_to_have():
    """The measured size counts the voxels that a crystal touches: one more than its width."""
    made, counts = summed("34idc", (48, 48, 48))
    measured = oversampling(np.random.default_rng(0).poisson(counts * 1e6).astype(np.float32))
    assert measured == pytest.approx([48 / (48 / planned + 1) for planned in made.oversampling], rel=0.05)


def test_the_photons_of_a_scan_are_those_of_the_integrated_intensity():
    """Warren's formula for a crystal that turns at a constant speed: no pixel appears in it."""
    made = make_plan(replace(GOLD, instrument="id01", flux=1e24, structure_factor=250.0))
    volume, cell = exposure.ellipsoid_volume(GOLD.size), 4.078e-10**3
    total = made.exposure.rate * exposure.photons_over_peak(volume, made.basis)
    radius, wave = constants.physical_constants["classical electron radius"][0], wavelength(9 * KEV)
    turned = 1e24 / made.step * radius**2 * wave**3 * volume * 250**2 / cell**2 / math.sin(2 * made.bragg_angle)
    assert total == pytest.approx(turned, rel=1e-3)


def test_horizontal_scattering_is_weaker_by_the_polarisation():
    wish = replace(GOLD, instrument="id01", flux=1e24, structure_factor=250.0)
    rates = [make_plan(replace(wish, rock=rock)).exposure.rate for rock in ("eta", "mu")]
    assert rates[1] / rates[0] == pytest.approx(math.cos(math.radians(34.022)) ** 2, rel=1e-3)


def test_exposure_follows_from_the_wanted_strain():
    made = make_plan(replace(GOLD, rate=2e4, strain=1e-5))
    assert made.exposure.frame == pytest.approx(made.exposure.peak / 2e4)
    assert made.exposure.seconds == pytest.approx(made.exposure.frame * made.window[0])
    again = make_plan(replace(GOLD, strain=made.exposure.strain_at[1e5]))
    assert again.exposure.strain_peak == pytest.approx(1e5)


def test_dose_is_flux_times_energy_times_attenuation():
    made = make_plan(replace(GOLD, flux=1e22, structure_factor=250.0, attenuation=15.0))
    assert made.exposure.dose == pytest.approx(made.exposure.seconds * 1e22 * 9 * KEV * 15.0)
    assert make_plan(GOLD).exposure.dose is None
    assert any("no dose" in sentence for sentence in make_plan(GOLD).advice)


def test_the_law_and_its_inverse_agree():
    photons = np.geomspace(1, 1e7, 50)
    errors = [exposure.gradient_error(number) for number in photons]
    assert [exposure.photons_for(error) for error in errors] == pytest.approx(photons)
    assert np.all(np.diff(errors) < 0)
    assert errors[0] / errors[1] == pytest.approx((photons[1] / photons[0]) ** 0.5)  # beyond the law, as photon noise


def test_the_pattern_has_its_peak_in_the_middle_of_the_planned_window():
    made = make_plan(replace(GOLD, resolution=30e-9))
    counts = simulate(made)
    assert counts.shape == made.window
    assert counts.max() == pytest.approx(made.exposure.peak, rel=0.1)
    assert np.abs(np.subtract(np.unravel_index(counts.argmax(), counts.shape), np.array(counts.shape) // 2)).max() <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"energy": 2 * KEV}, "out of reach.*half the wavelength.*2.633 keV"),
        ({"arm_limit": math.radians(30)}, "out of reach.*beyond its arm.*10.17 keV"),
        ({"instrument": "id27", "energy": 3.5 * KEV}, "no arm.*higher energy"),
        ({"instrument": "nowhere"}, "nowhere.*not built in"),
        ({"rock": "Chi"}, "no circle Chi.*Theta"),
        ({"energy": 9e3 * KEV}, "9e.06 eV is no photon energy"),
        ({"distance": 500.0}, "was 500 mm meant"),
        ({"reflection": (0, 0, 0)}, "found 0,0,0"),
        ({"flux": 1e20}, "needs the structure factor"),
        ({"flux": 1e20, "structure_factor": 1.0, "rate": 1.0}, "one of them"),
        ({"resolution": 100e-9}, "less than four"),
        ({"size": (1.0, 1.0, 1.0)}, "5 to 100000 nm"),
        ({"lattice": cubic(4.078)}, "1 to 1000 Å"),
        ({"strain": 0.0}, "strain: expected a positive number"),
        ({"rate": math.nan}, "rate: expected a positive number"),
        ({"energy": math.nan}, "no photon energy"),
        ({"size": (math.nan,) * 3}, "5 to 100000 nm"),
        ({"step": 1e-9}, "frames, more than 20000"),
        ({"resolution": 1e-15}, "frames, more than 20000"),
        ({"step": 1.0}, "at most 5°, found 57"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, words):
    with pytest.raises(BraggshotError, match=words) as caught:
        make_plan(replace(GOLD, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": math.radians(0.04)}, "rocking axis is too coarse.*rock by"),
        ({"size": (900e-9,) * 3}, "rows is too coarse.*move the detector to 1.1 to 1.4 m"),
        ({"source": 6e-3, "source_distance": 20.0}, "larger than the transverse coherence length, 230 nm"),
        ({"bandwidth": 1e-2}, "longitudinal coherence length, 6.89 nm"),
        ({"resolution": 4e-9}, "the detector ends at voxels of"),
        ({"strain": 1e-8}, "more photons than were tried"),
    ],
)
def test_what_stands_against_a_plan_is_said_with_what_helps(changes, words):
    assert any(re.search(words, sentence) for sentence in make_plan(replace(GOLD, **changes)).advice)


@pytest.mark.parametrize("name", DETECTORS)
def test_known_detectors_have_a_pixel_size(name):
    shape, pitch = describe_detector(name)
    assert shape == max(size for size, _, _ in DETECTORS[name])
    assert pitch in {55e-6, 75e-6, 172e-6}


def test_the_command_prints_one_object_and_writes_a_slide(tmp_path, capsys):
    path = tmp_path / "plan.png"
    assert run(*COMMAND, "--json", "--rate", "2e4", "--resolution-nm", "30", "-o", path) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["motors_deg"] == pytest.approx({"Theta": 17.011, "Delta": 34.022}, abs=1e-3)
    needed = {"spacing_m", "bragg_angle_deg", "oversampling", "step_deg", "frames", "exposure_s", "seconds", "dose_gray", "advice",
              "transverse_coherence_m", "longitudinal_coherence_m", "strain_at_peak", "peak_photons"}  # fmt: skip
    assert needed <= set(found)
    assert found["dose_gray"] is None
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_command_says_it_in_words(capsys):
    assert run(*COMMAND, "--flux", "1e10", "--structure-factor", "250", "--attenuation", "150") == 0
    out = capsys.readouterr().out
    for words in ("Theta 17.01", "oversampling", "typical source", "Gy absorbed", "s a frame"):
        assert words in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--detector", "eigre1m"], "did you mean 'eiger1m'"),
        (["--lattice", "4,4"], "--lattice expects"),
        (["--size-nm", "1,2"], "--size-nm expects"),
        (["--instrument", "eta/delta"], "--instrument expects"),
        (["--instrument", "eta:x-/delta:"], "--instrument expects"),
        (["--instrument", "eta:q-/delta:x-"], "--instrument expects"),
        (["--hkl", "nan,1,1"], "--hkl expects"),
        (["--hkl", "inf,1,1"], "--hkl expects"),
        (["-o", "plan.jpg"], "ends in .png"),
        (["--hkl", "11"], "--hkl expects"),
        (["--shape", "0", "5"], "--shape: expected"),
    ],
)
def test_a_wrong_flag_is_one_line(changes, words, capsys):
    assert run(*COMMAND, *changes) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_detector_has_a_name_or_a_shape_and_pixels(capsys):
    arguments = [word for word in COMMAND if word not in {"--detector", "timepix"}]
    assert run(*arguments) == 1
    assert "--detector NAME, or --shape" in capsys.readouterr().err
    assert run(*arguments, "--shape", "256", "256", "--pixel-um", "55") == 0


def test_errors_are_of_the_kinds_that_the_docstrings_name():
    with pytest.raises(GeometryError):
        make_plan(replace(GOLD, energy=2 * KEV))
    with pytest.raises(ConfigError):
        make_plan(replace(GOLD, rock="Chi"))


def test_the_words_of_the_slide_do_not_meet():
    facts = [(f"fact {number}", "a value of many words " * 6) for number in range(6)]
    figure = plan_slide("Plan", facts, ["advice of many words " * 20] * 2, np.ones((4, 5, 6)))
    FigureCanvasAgg(figure)
    boxes = [text.get_window_extent() for text in figure.texts]
    assert not [(one, two) for n, one in enumerate(boxes) for two in boxes[n + 1 :] if one.overlaps(two)]
    assert all(box.x0 >= 0 and box.x1 <= 2000 for box in boxes)


def test_a_crystal_too_large_for_the_steps_has_advice_in_place_of_a_pattern(tmp_path, capsys):
    path = tmp_path / "plan.png"
    assert run(*COMMAND, "--step-deg", "0.2", "-o", path) == 0
    assert "too coarse to be phased" in capsys.readouterr().out
    assert path.exists()


def drawn(random):
    """Return a wish of values from far apart."""

    def between(low, high):
        return float(np.exp(random.uniform(math.log(low), math.log(high))))

    return {
        "energy": between(1, 200) * KEV, "distance": between(0.02, 50), "pixel_size": between(1e-6, 2e-3),
        "shape": (int(between(8, 5000)), int(between(8, 5000))), "size": tuple(between(5e-9, 1e-4) for _ in range(3)),
        "lattice": cubic(between(2e-10, 2e-9)), "reflection": tuple(random.integers(-4, 5, 3).tolist()),
        "instrument": str(random.choice(list(INSTRUMENTS))), "strain": between(1e-9, 1), "flux": between(1e10, 1e30),
        "structure_factor": 100.0, "attenuation": between(1e-3, 1e3),
    }  # fmt: skip


def test_any_plan_is_finite_or_refused():
    """No number is lost, and no error is a surprise."""
    planned = 0
    for seed in range(60):
        with contextlib.suppress(BraggshotError):
            made = make_plan(Wish(**drawn(np.random.default_rng(seed))))
            json.dumps(as_record(made), allow_nan=False)
            assert all(value for _, value in describe(made))
            planned += 1
    assert planned > 20
