"""Fixtures of the format tests; the files themselves are made in `sample_inputs`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from sample_inputs import SAMPLES, Sample


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
    """One file after the other, of every format."""
    return SAMPLES[request.param](tmp_path)


class CountingFile(io.FileIO):
    """A file that adds up what is read from it."""

    total = 0
    opener = h5py.File

    def readinto(self, buffer: Any) -> int:
        number = super().readinto(buffer) or 0
        CountingFile.total += number
        return number


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountingFile]]:
    """HDF5 files opened through a file that counts: `bytes_read.total`."""
    opened: list[CountingFile] = []

    def counted(path: Any, mode: str, **options: Any) -> h5py.File:
        opened.append(CountingFile(path))
        return CountingFile.opener(opened[-1], mode)

    monkeypatch.setattr("braggshot.io.files.h5py.File", counted)
    CountingFile.total = 0
    yield CountingFile
    for file in opened:
        file.close()
