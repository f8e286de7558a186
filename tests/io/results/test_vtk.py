import base64
import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from sample_reconstruction import SKEWED_BASIS, sample_reconstruction

from braggshot.io.results import vtk

TYPES = {"Float32": "<f4", "UInt8": "u1"}


def parse(path):
    """The format as VTK's documentation states it: arrays (z, y, x), grid attributes, notes, units."""
    root = ET.parse(path).getroot()
    assert (root.get("type"), root.get("header_type"), root.get("byte_order")) == ("ImageData", "UInt64", "LittleEndian")
    image = root.find("ImageData")
    extent = [int(n) for n in image.get("WholeExtent").split()]
    shape = tuple(extent[2 * axis + 1] + 1 for axis in (2, 1, 0))
    appended = root.find("AppendedData").text.strip()
    assert appended[0] == "_"
    arrays, units = {}, {}
    for item in image.find("Piece/PointData"):
        start = 1 + int(item.get("offset"))
        blocks, size, last, packed = struct.unpack("<4Q", base64.b64decode(appended[start : start + 44]))
        assert (blocks, last) == (1, 0)
        end = start + 44 + 4 * -(-packed // 3)
        raw = zlib.decompress(base64.b64decode(appended[start + 44 : end]))
        assert len(raw) == size
        arrays[item.get("Name")] = np.frombuffer(raw, TYPES[item.get("type")]).reshape(shape)
        units[item.get("Name")] = item.find("InformationKey").text
    grid = {name: np.array(image.get(name).split(), float) for name in ("Origin", "Spacing", "Direction")}
    notes = {item.get("Name"): bytes(int(code) for code in item.text.split()[:-1]).decode() for item in image.find("FieldData")}
    return arrays, units, grid, notes


def place(grid, x, y, z):
    """Where ParaView draws the point of index (x, y, z)."""
    return grid["Origin"] + grid["Direction"].reshape(3, 3) @ (grid["Spacing"] * [x, y, z])


def test_arrays_come_back_with_units(tmp_path):
    crystal = sample_reconstruction()
    vtk.write(tmp_path / "a.vti", crystal)
    arrays, units, _, _ = parse(tmp_path / "a.vti")
    np.testing.assert_array_equal(arrays["amplitude"], np.abs(crystal.rho))
    np.testing.assert_array_equal(arrays["phase"], np.where(crystal.support, np.angle(crystal.rho), 0))
    np.testing.assert_array_equal(arrays["support"], crystal.support)
    assert units == {"amplitude": "photons^0.5", "phase": "rad", "support": "1"}


@pytest.mark.parametrize(("axis", "size"), [(0, 30e-9), (1, 20e-9), (2, 10e-9)])
def test_each_axis_of_ours_is_one_of_paraview(tmp_path, axis, size):
    """A point moved along +z, +y or +x of the laboratory frame moves along that axis of ParaView, by its voxel size in nm."""
    rho = np.zeros((6, 8, 10), np.complex64)
    index = [3, 4, 5]
    index[axis] += 2
    rho[tuple(index)] = 1
    crystal = sample_reconstruction(rho.shape, rho=rho, support=rho != 0, basis=np.diag([30e-9, 20e-9, 10e-9]), frame="lab")
    vtk.write(tmp_path / "a.vti", crystal)
    arrays, _, grid, notes = parse(tmp_path / "a.vti")
    z, y, x = np.argwhere(arrays["amplitude"])[0]
    expected = np.zeros(3)
    expected[2 - axis] = 2 * size * 1e9  # ParaView's order is (x, y, z)
    np.testing.assert_allclose(place(grid, x, y, z), expected, atol=1e-6)
    assert notes == {"frame": "lab", "length_unit": "nm"}


def test_a_rotated_orthogonal_basis_is_drawn_exactly(tmp_path):
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    basis = turn @ np.diag([3e-9, 2e-9, 1e-9])
    vtk.write(tmp_path / "a.vti", sample_reconstruction(basis=basis, frame="crystal"))
    _, _, grid, _ = parse(tmp_path / "a.vti")
    z, y, x = 7, 2, 9
    centre = np.array([10, 12, 15]) // 2
    np.testing.assert_allclose(place(grid, x, y, z), (basis @ ([z, y, x] - centre))[::-1] * 1e9, atol=1e-6)


@pytest.mark.parametrize("flipped", [(), (0,), (1,), (2,), (0, 1, 2)])
def test_skewed_axes_are_drawn_at_right_angles_but_never_mirrored(tmp_path, flipped):
    """Detector rows that count downwards, or angles that fall, make a left-handed basis; a drawing by plain indices mirrors it."""
    basis = SKEWED_BASIS * [-1 if axis in flipped else 1 for axis in range(3)]
    vtk.write(tmp_path / "a.vti", sample_reconstruction(basis=basis))
    _, _, grid, notes = parse(tmp_path / "a.vti")
    np.testing.assert_allclose(grid["Spacing"], np.linalg.norm(basis, axis=0)[::-1] * 1e9, rtol=1e-8)
    drawn = grid["Direction"].reshape(3, 3)
    np.testing.assert_allclose(drawn.T @ drawn, np.eye(3), atol=1e-7)
    edges = basis[::-1, ::-1] / np.linalg.norm(basis, axis=0)[::-1]
    assert np.sign(np.linalg.det(drawn)) == np.sign(np.linalg.det(edges))
    assert (np.einsum("ij,ij->j", drawn, edges) > 0.8).all()  # each axis points along its edge
    assert notes["frame"] == "detector (skewed axes, drawn at right angles)"


def test_without_geometry_the_grid_is_voxels(tmp_path):
    vtk.write(tmp_path / "a.vti", sample_reconstruction(basis=None))
    _, _, grid, notes = parse(tmp_path / "a.vti")
    np.testing.assert_array_equal(grid["Spacing"], [1, 1, 1])
    np.testing.assert_array_equal(grid["Origin"], [-7, -6, -5])
    assert notes["length_unit"] == "voxel"
