"""Objects of other programs, as those write them, become the strain that was put in; wrong signs and wrong scans are noticed."""

import dataclasses
import functools
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
import torch

from braggshot import cli
from braggshot.errors import DataError, FormatError, GeometryError
from braggshot.io import results
from braggshot.io.results import cdiutils, cohere
from braggshot.physics.metrics import align
from braggshot.postprocess import postprocess
from braggshot.volumes import Verdict

SPEC = importlib.util.spec_from_file_location("round_trip", Path(__file__).parents[1] / "benchmarks" / "round_trip.py")
rt = importlib.util.module_from_spec(SPEC)
sys.modules["round_trip"] = rt
SPEC.loader.exec_module(rt)

simulated = functools.cache(rt.simulate)
LAB = {"strain": {"frame": "lab"}}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A raw scan (counts and a table of angles), and the true object on a cropped grid, its pattern not in the middle."""
    folder = tmp_path_factory.mktemp("scan")
    simulation = simulated("34idc")
    intensity = np.abs(simulation.amplitude) ** 2
    counts = np.random.default_rng(0).poisson(intensity * (3e5 / intensity.max()))
    np.save(folder / "counts.npy", counts.astype(np.int32))
    angles = ", ".join(
        f"{c.name} = {_toml(np.degrees(c.angle))}" for c in (*simulation.geometry.sample, *simulation.geometry.detector)
    )
    (folder / "geometry.toml").write_text(
        'instrument = "34idc"\nenergy_ev = 9000.0\ndistance_m = 0.25\npixel_size_m = 55e-6\ndirect_beam = [21.3, 17.6]\n'
        f"angles_deg = {{{angles}}}\n"
    )
    window = rt.Window((2, 3, -1), (1, 1, 1), rt.SHAPE)
    return folder, simulation, rt.exactly_phased(simulation, None, window, (36, 40, 36))


def _toml(angle):
    return str(float(angle)) if np.ndim(angle) == 0 else f"[{angle[0]}, {angle[-1]}]"


def settings(folder, **more):
    return LAB | {"input": {"geometry": str(folder / "geometry.toml")}} | more


def check(result, simulation):
    """Against the truth, its unknowable shift removed."""
    truth = rt.exactly_phased(simulation, None, result.volume.window, result.volume.shape)
    both = align(
        torch.from_numpy(result.rho), torch.from_numpy(np.where(truth.support, truth.rho, 0).astype(np.complex64)), allow_twin=False
    )
    assert both.correlation > 0.98  # never its twin
    np.testing.assert_allclose(both.shift, 0, atol=0.6)
    errors = rt.compare(result.strain, simulation)
    assert errors.overlap > 0.9
    assert errors.correlation > 0.98
    assert abs(errors.mean_strain) < 2e-5
    assert result.quality.chi2 < 0.02


def as_pynx(path, found, data=None, shape_known=True):
    """The layout of PyNX 2025.1: cropped object, int8 mask, complex128, the phased shape among the parameters."""
    inside = np.argwhere(found.support)
    box = tuple(slice(max(0, low - 4), high + 4) for low, high in zip(inside.min(0), inside.max(0), strict=True))
    half = [max(n // 2 - part.start, part.stop - n // 2) for part, n in zip(box, found.rho.shape, strict=True)]
    box = tuple(slice(n // 2 - min(h, n // 2), n // 2 + min(h, n // 2)) for h, n in zip(half, found.rho.shape, strict=True))
    with h5py.File(path, "w") as file:
        image = file.create_group("entry_1/image_1")
        file["entry_last"] = h5py.SoftLink("/entry_1")
        image["data"] = (np.where(found.support, found.rho, 0) if data is None else data)[box].astype(np.complex128)
        image["mask"] = found.support[box].astype(np.int8)
        image["process_1/program"] = "PyNX"
        if shape_known:
            image["process_1/configuration/iobs_shape"] = np.array(found.rho.shape)
        image["process_1/results/free_llk_poisson"] = 1.49


def test_an_object_of_pynx(there, tmp_path):
    folder, simulation, found = there
    as_pynx(tmp_path / "recon.cxi", found)
    result = postprocess(tmp_path / "recon.cxi", folder / "counts.npy", settings(folder))
    check(result, simulation)
    assert result.volume.window.start == (2, 3, -1)  # found by the counts alone
    assert "voxels apart" in result.choices["crop"]
    assert result.verdict == "explained"
    assert "counts are explained" in result.reasons[0]


def test_an_object_of_cohere(there, tmp_path):
    """cohere's image is the conjugate, in the order (column, row, frame)."""
    folder, simulation, found = there
    cohere.export(tmp_path, found)
    for place in (tmp_path, tmp_path / "results_phasing", tmp_path / "results_phasing" / "image.npy"):
        back = cohere.read(place)
        np.testing.assert_allclose(back.rho, found.rho, atol=1e-4 * np.abs(found.rho).max())
        np.testing.assert_array_equal(back.support, found.support)
    check(postprocess(tmp_path, folder / "counts.npy", settings(folder)), simulation)


def test_an_object_from_a_cdiutils_folder(there, tmp_path):
    folder, simulation, found = there
    path = cdiutils.export(tmp_path, found, scan=7)
    check(postprocess(path, folder / "counts.npy", settings(folder)), simulation)


def test_the_wrong_sign_is_seen_in_the_counts(there, tmp_path):
    """An object stored with the other sign scatters into the inverted pattern."""
    folder, simulation, found = there
    as_pynx(tmp_path / "recon.cxi", found, np.where(found.support, found.rho, 0).conj())
    result = postprocess(tmp_path / "recon.cxi", folder / "counts.npy", settings(folder))
    check(result, simulation)
    assert result.choices["sign_of_the_object"].startswith("conjugated")


def test_a_cropped_object_gets_its_true_size(there, tmp_path):
    """The array ends at the support and nothing says how large it was: the counts tell."""
    folder, simulation, found = there
    as_pynx(tmp_path / "recon.cxi", found, shape_known=False)
    assert results.read(tmp_path / "recon.cxi").rho.shape != found.rho.shape
    result = postprocess(tmp_path / "recon.cxi", folder / "counts.npy", settings(folder))
    assert result.verdict == "explained"
    np.testing.assert_allclose(result.rho.shape, found.rho.shape, atol=1)
    check(result, simulation)
    assert "found by the counts" in result.choices["grid"]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_object_is_turned_back(there, tmp_path, axis):
    folder, simulation, found = there
    flipped = np.roll(np.flip(np.where(found.support, found.rho, 0), axis), 1 - found.rho.shape[axis] % 2, axis)
    support = np.roll(np.flip(found.support, axis), 1 - found.rho.shape[axis] % 2, axis)
    as_pynx(tmp_path / "recon.cxi", dataclasses.replace(found, rho=flipped, support=support))
    result = postprocess(tmp_path / "recon.cxi", folder / "counts.npy", settings(folder))
    check(result, simulation)
    said = f"mirrored along {('rocking', 'row', 'column')[axis]}, because the counts are explained so"
    assert result.choices["mirror"] == said
    assert any(said in reason for reason in result.reasons)


def test_an_object_without_counts_is_not_judged(there, tmp_path):
    _, _, found = there
    as_pynx(tmp_path / "recon.cxi", found)
    read = results.read(tmp_path / "recon.cxi")
    assert read.verdict == "not judged"
    results.write(tmp_path / "again.cxi", read)
    assert results.read(tmp_path / "again.cxi").verdict == "not judged"
    assert cohere_object(tmp_path, found).verdict == "not judged"


def cohere_object(folder, found):
    cohere.export(folder, found)
    return cohere.read(folder)


def test_an_object_that_a_refinement_improves_much_is_doubtful(there, tmp_path):
    """The right crystal, its amplitude made uneven: the counts place it, but do not confirm it."""
    folder, _, found = there
    uneven = found.rho * (1 + 0.5 * np.sin(np.arange(found.rho.shape[2])))
    as_pynx(tmp_path / "recon.cxi", found, np.where(found.support, uneven, 0))
    result = postprocess(tmp_path / "recon.cxi", folder / "counts.npy", settings(folder))
    assert result.verdict == "doubtful"
    assert any("short refinement" in reason for reason in result.reasons)


def test_every_verdict_has_its_words_and_marks():
    """The terminal, the report, the slide and the page look a verdict up in tables."""
    from braggshot.cli import reconstruct
    from braggshot.report import html, text
    from braggshot.viewer import drawings

    slide = importlib.import_module("braggshot.report.slide")
    tables = (reconstruct._COLOURS, html.SYMBOLS, slide.HUES, text.HEADLINES, text.ADVICE, drawings.SHAPES, drawings.HUES)
    for table in tables:
        assert set(table) == set(get_args(Verdict))


def test_an_object_of_another_scan_is_refused(there, tmp_path):
    folder, _, found = there
    random = np.random.default_rng(1).normal(size=found.rho.shape) * np.exp(1j * np.arange(found.rho.size).reshape(found.rho.shape))
    as_pynx(tmp_path / "recon.cxi", found, random)
    with pytest.raises(DataError, match="does not explain"):
        postprocess(tmp_path / "recon.cxi", folder / "counts.npy", settings(folder))


def test_a_result_of_braggshot_needs_no_scan(there, tmp_path):
    _, simulation, found = there
    results.write(tmp_path / "own.cxi", found)
    result = postprocess(tmp_path / "own.cxi", settings=LAB)
    assert rt.compare(result.strain, simulation).correlation > 0.99


def test_what_cannot_be_postprocessed_says_why(there, tmp_path):
    _, _, found = there
    as_pynx(tmp_path / "recon.cxi", found)
    with pytest.raises(GeometryError, match="geometry"):
        postprocess(tmp_path / "recon.cxi")
    with pytest.raises(FormatError, match="no such file"):
        postprocess(tmp_path / "nothing.cxi")
    np.save(tmp_path / "image.npy", np.ones((4, 4, 4)))
    with pytest.raises(FormatError, match="complex 3D"):
        postprocess(tmp_path / "image.npy")
    with pytest.raises(FormatError, match=r"no image\.npy"):
        postprocess(Path(__file__).parent)


def test_the_command(there, tmp_path, capsys):
    folder, _, found = there
    as_pynx(tmp_path / "recon.cxi", found)
    arguments = ["postprocess", str(tmp_path / "recon.cxi"), "--scan", str(folder / "counts.npy"), "-o", str(tmp_path / "out.cxi")]
    arguments += ["--set", f"input.geometry={folder / 'geometry.toml'}", "--set", "strain.reflection=[1,1,1]", "--json"]
    assert cli.main(arguments) == 0
    record = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record["method"] == "PyNX"
    assert record["strain"]["lattice_parameter_m"] == pytest.approx(np.sqrt(3) * record["strain"]["d_spacing_m"], rel=1e-4)
    assert results.read_strain(tmp_path / "out.cxi").reflection == (1, 1, 1)
