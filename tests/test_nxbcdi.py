"""The draft definition `docs/NXbcdi.nxdl.xml` describes our result files; where pynxtools is installed, it says so too."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from sample_reconstruction import sample_reconstruction

from braggshot.io import results

DEFINITION = Path(__file__).parents[1] / "docs" / "NXbcdi.nxdl.xml"
NXDL = "{http://definition.nexusformat.org/nxdl/3.1}"
KINDS = {"NX_FLOAT": "f", "NX_INT": "iu", "NX_NUMBER": "iuf", "NX_COMPLEX": "c", "NX_CHAR": "OS", "NX_DATE_TIME": "OS"}
KNOWN = {"instrument_1/detector_1/data": "photons", "/data": "NX_NUMBER"}
"""What pynxtools finds all the same: photons are no unit of its list, and the mode is the one image that is complex."""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "result.cxi"
    results.write(path, sample_reconstruction())
    return path


def faults(node, group):
    """What a part of a file lacks, or has in another form, of what a part of the definition asks for."""
    for part in node:
        name = part.get("name")
        if part.tag not in {NXDL + "group", NXDL + "field"} or name is None or part.get("nameType") == "partial":
            continue
        if name not in group:
            if not {"optional", "recommended"} & set(part.keys()) and name != "definition":
                yield f"{name} is missing"
            continue
        found = group[name]
        if part.tag == NXDL + "group":
            if found.attrs.get("NX_class") != part.get("type"):
                yield f"{name} is no {part.get('type')}"
            yield from faults(part, found)
            continue
        if found.dtype.kind not in KINDS[part.get("type", "NX_CHAR")]:
            yield f"{name} is {found.dtype}"
        sizes = part.find(NXDL + "dimensions")
        if sizes is not None and found.ndim != int(sizes.get("rank")):
            yield f"{name} has {found.ndim} axes"
        allowed = [item.get("value") for item in part.findall(f"{NXDL}enumeration/{NXDL}item")]
        if allowed and found.asstr()[()] not in allowed:
            yield f"{name} is {found.asstr()[()]}"


def entry_of(definition):
    return next(group for group in definition.findall(NXDL + "group") if group.get("type") == "NXentry")


def test_a_result_is_what_the_definition_says(file):
    entry = entry_of(ElementTree.parse(DEFINITION).getroot())
    with h5py.File(file, "a") as opened:
        assert list(faults(entry, opened["entry_1"])) == []
        del opened["entry_1/instrument_1/detector_1/mask"], opened["entry_1/image_1/frame"]
        opened["entry_1/image_1/frame"] = "moon"
        assert list(faults(entry, opened["entry_1"])) == ["mask is missing", "frame is moon"]


@pytest.mark.skipif(importlib.util.find_spec("pynxtools") is None, reason="pynxtools is not installed")
def test_a_maintained_validator_reads_the_definition_and_finds_nothing_else(file, tmp_path):
    place = Path(importlib.util.find_spec("pynxtools").origin).parent / "definitions"
    definitions = tmp_path / "definitions"
    shutil.copytree(place, definitions)
    shutil.copy(DEFINITION, definitions / "applications")
    with h5py.File(file, "a") as opened:
        opened["entry_1/definition"] = "NXbcdi"
        del opened["entry_last"]  # else it is read twice

    def said():
        words = [str(Path(sys.executable).with_name("pynx")), "validate", str(file)]
        done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"NEXUS_DEF_PATH": str(definitions)})
        assert "Traceback" not in done.stderr
        lines = [line.partition("WARNING: ")[2] for line in (done.stdout + done.stderr).splitlines() if "WARNING: " in line]
        quiet = r"no documentation|Reserved suffix|no '@target'|^Invalid: "
        return [line for line in lines if not re.search(quiet, line)]

    for line in said():
        assert any(where in line and what in line for where, what in KNOWN.items()), line
    with h5py.File(file, "a") as opened:
        del opened["entry_1/instrument_1/detector_1/mask"]
        opened["entry_1/image_1/mask"][...] = np.ones(opened["entry_1/image_1/mask"].shape)
    assert any("required field /entry_1/instrument_1/detector_1/mask" in line for line in said())
