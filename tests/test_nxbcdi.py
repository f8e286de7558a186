"""The draft definition `docs/NXbcdi.nxdl.xml` describes our result files; where pynxtools is found, it says so too."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from sample_crystal import result
from sample_reconstruction import sample_reconstruction

from braggshot.io import results
from braggshot.io.hdf5 import link
from braggshot.volumes import Uncertainty

DEFINITION = Path(__file__).parents[1] / "docs" / "NXbcdi.nxdl.xml"
NXDL = "{http://definition.nexusformat.org/nxdl/3.1}"
KINDS = {"NX_FLOAT": "f", "NX_INT": "iu", "NX_NUMBER": "iuf", "NX_COMPLEX": "c", "NX_CHAR": "OS", "NX_DATE_TIME": "OS"}
PYNX = shutil.which("pynx", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
maintained = pytest.mark.skipif(PYNX is None, reason="no pynxtools (its command pynx) beside Python or on PATH")


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


@pytest.fixture
def definitions(tmp_path):
    """The definitions that pynxtools brings, with ours among them."""
    (place,) = Path(PYNX).resolve().parents[1].glob("lib/python*/site-packages/pynxtools/definitions")
    shutil.copytree(place, tmp_path / "definitions")
    shutil.copy(DEFINITION, tmp_path / "definitions" / "applications")
    return tmp_path / "definitions"


@maintained
def test_the_definition_follows_the_schema_of_definitions(definitions):
    etree = pytest.importorskip("lxml.etree", reason="no lxml, which checks an XML schema")
    etree.XMLSchema(etree.parse(definitions / "nxdl.xsd")).assertValid(etree.parse(DEFINITION))


def point_to(entry, place):
    """Make the links of an entry that was copied point into it."""
    links = {}
    entry.visititems_links(lambda name, item: links.update({name: item}) if isinstance(item, h5py.SoftLink) else None)
    for name, item in links.items():
        target = item.path.replace("/entry_1", place)
        del entry[name]
        link(entry, name, entry.file[target])


@maintained
def test_a_maintained_validator_calls_each_reflection_of_a_file_valid(file, tmp_path, definitions):
    """Two reflections as two entries; the second has a strain map, a spread, a gain and no beam."""
    other = result()
    spread = Uncertainty(np.ones(other.rho.shape), np.ones(other.rho.shape), 3, "starts")
    gain = np.ones(other.rho.shape[1:])
    results.write(
        tmp_path / "other.cxi",
        dataclasses.replace(other, uncertainty=spread, volume=dataclasses.replace(other.volume, gain=gain)),
    )
    with h5py.File(tmp_path / "other.cxi") as second, h5py.File(file, "a") as opened:
        second.copy("entry_1", opened, "entry_2")
        for entry in ("entry_1", "entry_2"):
            opened[entry]["definition"] = "NXbcdi"
        point_to(opened["entry_2"], "/entry_2")

    def said():
        environment = os.environ | {"NEXUS_DEF_PATH": str(definitions)}
        done = subprocess.run([PYNX, "validate", str(file)], capture_output=True, text=True, env=environment)
        assert "Traceback" not in done.stderr
        lines = (done.stdout + done.stderr).splitlines()
        return [line for line in lines if not line.endswith("has no documentation.") or line.startswith("WARNING")]

    lines = said()
    assert not [line for line in lines if "WARNING" in line]
    for entry in ("entry_1", "entry_2"):
        assert any(f"`{entry}`" in line and "is valid according to the `NXbcdi`" in line for line in lines)
    with h5py.File(file, "a") as opened:
        del opened["entry_2/instrument_1/detector_1/mask"]
    lines = said()
    assert any("required field /entry_2/instrument_1/detector_1/mask" in line for line in lines)
    assert any("`entry_2`" in line and "NOT valid" in line for line in lines)
