"""What every input format must pass: read back, be the only claimant, read regions, refuse what is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from braggshot.errors import DataError, FormatError
from braggshot.io.registry import BUILT_IN, choose, describe, load_reader, read

REGIONS = [
    (slice(None), slice(None), slice(None)), (slice(2, 7), slice(3, 9), slice(1, 8)),
    (slice(8, 1, -3), slice(None), slice(0, 9, 4)),
    (4, slice(2, 5), slice(None)), (-1, 3, slice(1, 2)), (np.array([7, 0, 0, 5]), slice(5, 6), slice(-4, None)), (slice(5, 5),),
    (Ellipsis, slice(2, 4)), (np.arange(9) % 2 == 0, slice(0, 4)), (slice(3, 4), 0, 0),
]  # fmt: skip


def test_counts_mask_and_angles_come_back(sample: Any) -> None:
    scan = read(sample.path, **sample.options)
    assert scan.frames.shape == sample.counts.shape
    assert np.array_equal(scan.frames[...], sample.counts)
    assert np.array_equal(np.asarray(scan.frames), sample.counts)
    assert len(scan.frames) == len(sample.counts)  # type: ignore[arg-type]
    if sample.valid is None:
        assert scan.valid is None
    else:
        assert np.array_equal(scan.valid, sample.valid)
    if sample.rocking_angle is None:
        assert scan.rocking_angle is None
    else:
        assert np.allclose(scan.rocking_angle, sample.rocking_angle, atol=1e-9)
    assert scan.provenance["format"] == sample.format


@pytest.mark.parametrize("region", REGIONS, ids=str)
def test_a_region_is_the_cut_of_the_whole(sample: Any, region: Any) -> None:
    frames = read(sample.path, **sample.options).frames
    if isinstance(region[0], np.ndarray) and region[0].dtype == bool:
        region = (np.arange(len(sample.counts)) % 2 == 0, *region[1:])
    expected = sample.counts[region]
    cut = frames[region]
    assert cut.shape == expected.shape
    assert np.array_equal(cut, expected)


def test_exactly_one_reader_claims(sample: Any) -> None:
    chosen, _ = choose(sample.path)
    readers = {candidate.name: load_reader(candidate) for candidate in BUILT_IN}
    claims = {name: reader for name, reader in readers.items() if reader.can_read(sample.path)}
    assert chosen.name == sample.format
    assert set(claims) - {getattr(reader, "PARENT", None) for reader in claims.values()} == {sample.format}


def test_damaged_file_is_one_clear_line(sample: Any) -> None:
    whole = sample.damage.read_bytes()
    sample.damage.write_bytes(whole[: len(whole) * 3 // 5])
    if sample.damage != Path(sample.path):
        expect_named(sample)  # one of many files
        return
    with pytest.raises((FormatError, DataError)) as caught:
        read(sample.path, **sample.options).frames[...]
    assert "\n" not in str(caught.value)
    assert sample.damage.name in str(caught.value)


def expect_named(sample: Any) -> None:
    """The frames of the last file are lost: the scan ends before them, or they are masked; the others are read, and it is said."""
    scan = read(sample.path, **sample.options)
    here = np.ones(len(scan.frames), bool) if scan.arrived is None else scan.arrived  # type: ignore[arg-type]
    assert 3 < here.sum() < len(sample.counts)
    assert np.array_equal(scan.frames[here], sample.counts[: len(here)][here])
    assert not scan.frames[~here].any()
    assert any(sample.damage.name in said for said in scan.provenance["noticed"])


def test_missing_counts_are_one_clear_line(sample: Any) -> None:
    if (
        str(sample.damage.parent) == str(sample.path)
        or "*" in str(sample.path)
        or sample.format.startswith(("aps_", "esrf_id01_spec", "heps_"))
    ):
        pytest.skip("without the last image, a folder is a shorter scan")
    sample.damage.unlink()
    if sample.damage != Path(sample.path):
        expect_named(sample)
        return
    with pytest.raises(FormatError, match=sample.damage.name):
        read(sample.path, **sample.options)


def test_description_is_plain_and_reads_no_more_than_three_frames(sample: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from braggshot.io import frames

    seen: list[int] = []
    for kind in (frames.HDF5Frames, frames.TiffFrames, frames.NpyFrames, frames.ArrayFrames):
        original = kind.read

        def spy(self: Any, indices: Any, *cuts: slice, original: Any = original) -> Any:
            seen.extend(indices)
            return original(self, indices, *cuts)

        monkeypatch.setattr(kind, "read", spy)
    facts = describe(sample.path, **sample.options)
    assert json.loads(json.dumps(facts))["shape"] == list(sample.counts.shape)
    assert facts["format"] == sample.format
    assert facts["masked_share"] == (None if sample.valid is None else pytest.approx(1 - sample.valid.mean()))
    assert len(seen) <= 3


@pytest.mark.parametrize("shape", [(12, 10), (2, 3, 4, 5)])
@pytest.mark.parametrize("suffix", [".npy", ".tif", ".h5", ".cxi"])
def test_data_that_are_not_3d_are_refused(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    import h5py
    import tifffile

    path, data, options = tmp_path / f"a{suffix}", np.ones(shape, np.float32), {}
    if suffix == ".npy":
        np.save(path, data)
    elif suffix == ".tif":
        tifffile.imwrite(path, data, photometric="minisblack")
    else:
        with h5py.File(path, "w") as file:
            file["entry_1/instrument_1/detector_1/data" if suffix == ".cxi" else "data"] = data
        options = {} if suffix == ".cxi" else {"dataset": "data"}
    with pytest.raises(DataError, match="3D"):
        read(path, **options)


def test_wrong_scan_says_which_there_are(sample: Any) -> None:
    if "scan" not in sample.options:
        pytest.skip("one scan per file")
    with pytest.raises(FormatError, match=r"no scan 99; the file holds .*(12|54|191)"):
        read(sample.path, **{**sample.options, "scan": 99})
    assert np.array_equal(read(sample.path).frames[...], sample.counts)  # the only one with frames needs no number
