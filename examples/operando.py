"""What the worked examples share: a crystal that changes is measured scan by scan, followed by `braggshot series`, and compared.

A crystal is two functions of position: its depth below the surface and g . u, the displacement times the scattering vector of the
reference lattice. With x the positions that the material has now,

    F(q) = integral s(x) exp(-i (q - g) . x) exp(-i g . u(x)) dx,

which is exact for large strain too. The transform is taken on the skewed voxels that belong to the angles of APS 34-ID-C; counts
are written as that beamline writes them, one SPEC file and a folder of frames per scan.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from braggshot import cli
from braggshot.crystal_frame import StrainConfig, strain_map
from braggshot.crystals import shapes
from braggshot.crystals.grid import Grid, centred_grid
from braggshot.io.beamlines.aps_34idc import write_scan
from braggshot.physics.forward import intensity
from braggshot.physics.fourier import pad
from braggshot.physics.geometry import KEV, direct_basis, reciprocal_basis, wavelength
from braggshot.physics.strain import summary_table
from braggshot.volumes import Circle, DiffractionVolume, Geometry, Quality, Reconstruction, Window

NM = 1e-9
ENERGY = 9.0 * KEV
BEGAN = datetime.datetime(2024, 5, 14, 9, 0, 0)


@dataclass(frozen=True)
class Crystal:
    """A crystal at one time: depth of each voxel of a grid in nm [voxels], and g . u there [rad]."""

    depth: Callable[[Grid], torch.Tensor]
    phase: Callable[[Grid], torch.Tensor]


@dataclass(frozen=True)
class Experiment:
    """Where the detector stands and what is measured.

    Parameters
    ----------
    cell : edge of the cubic reference lattice [m]; its (111) peak is measured
    centre : edge of the lattice whose peak falls on the middle of the detector [m]
    gamma_deg : elevation of the detector
    shape : frames, rows, columns of each scan
    step_deg : of the rocking angle
    counts : photons in the brightest voxel
    """

    cell: float
    centre: float
    gamma_deg: float
    shape: tuple[int, int, int]
    step_deg: float
    counts: float = 1e6

    @property
    def delta(self) -> float:
        """Azimuth of the detector [rad]: cos(2 theta) = cos(delta) cos(gamma), lambda = 2 d sin(theta)."""
        theta = np.arcsin(wavelength(ENERGY) * np.sqrt(3) / self.centre / 2)
        return float(np.arccos(np.cos(2 * theta) / np.cos(np.radians(self.gamma_deg))))

    @property
    def geometry(self) -> Geometry:
        """The diffractometer of 34-ID-C at 9 keV, theta rocking."""
        theta = np.radians(0.2) + np.radians(self.step_deg) * (np.arange(self.shape[0]) - self.shape[0] // 2)
        return Geometry(
            energy=ENERGY,
            distance=0.5,
            pixel_size=(55e-6, 55e-6),
            sample=(Circle("y+", theta, "Theta"), Circle("z-", np.radians(90.0), "Chi"), Circle("y+", np.radians(-5.0), "Phi")),
            detector=(Circle("y+", self.delta, "Delta"), Circle("x-", np.radians(self.gamma_deg), "Gamma")),
            direct_beam=((self.shape[1] - 1) / 2, (self.shape[2] - 1) / 2),
            instrument="APS 34-ID-C",
        )

    @property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Reciprocal voxel edges and scattering vector at the middle of the scan [1/m]."""
        return reciprocal_basis(self.geometry, Window((0, 0, 0), (1, 1, 1), self.shape), self.shape)

    @property
    def g(self) -> np.ndarray:
        """Scattering vector of the reference lattice, along that of the detector's middle [1/m]."""
        q = self.grid[1]
        return q / np.linalg.norm(q) * (2 * np.pi * np.sqrt(3) / self.cell)

    @property
    def orientation(self) -> np.ndarray:
        """Matrix from the cubic axes to the laboratory (z, y, x): (111) along g."""
        onto, _ = Rotation.align_vectors(self.g[None] / np.linalg.norm(self.g), np.full((1, 3), 1 / np.sqrt(3)))
        return (Rotation.from_rotvec(0.4 * self.g / np.linalg.norm(self.g)) * onto).as_matrix()


def normals(experiment: Experiment, planes: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """Return unit normals of lattice planes in the laboratory, (1, planes, 3)."""
    hkl = np.array(planes, float)
    return torch.from_numpy((hkl / np.linalg.norm(hkl, axis=1, keepdims=True)) @ experiment.orientation.T).float()[None]


def counts(crystal: Crystal, experiment: Experiment, seed: int) -> np.ndarray:
    """Photons on every pixel of every frame."""
    reciprocal, q = experiment.grid
    z, y, x = (n // 2 for n in experiment.shape)
    grid = centred_grid(torch.from_numpy(direct_basis(reciprocal, experiment.shape) / NM).float()[None], (z, y, x))
    phase = grid.dot(torch.from_numpy((q - experiment.g) * NM).float()[None]) + crystal.phase(grid)
    rho = torch.polar(shapes.amplitude(crystal.depth(grid)), -phase)
    expected = intensity(pad(rho, experiment.shape)[0])
    return (
        torch.poisson(expected * (experiment.counts / expected.max()), generator=torch.Generator().manual_seed(seed)).int().numpy()
    )


def truth(crystal: Crystal, experiment: Experiment, voxel: float) -> dict[str, float]:
    """Measure the numbers of the true crystal on voxels of the size that the reconstruction has, by the same definitions."""
    side = 2 * int(np.ceil(320 * NM / voxel)) + 1
    grid = centred_grid(torch.from_numpy(voxel / NM * np.eye(3)).float()[None], (side, side, side))
    rho = torch.polar(shapes.amplitude(crystal.depth(grid)), -crystal.phase(grid))[0].numpy()
    volume = DiffractionVolume(np.zeros(rho.shape), np.ones(rho.shape, bool), q_bragg=experiment.g)
    body = Reconstruction(rho, np.abs(rho) > 0.5, volume, Quality(0, 0, 0, 0), frame="lab", basis=voxel * np.eye(3))
    settings = StrainConfig(frame="lab", voxel_size=voxel, iso=0.5, reflection=(1, 1, 1), lattice=(experiment.cell,))
    fine = centred_grid(torch.from_numpy(voxel / NM / 4 * np.eye(3)).float()[None], (4 * side, 4 * side, 4 * side))
    solid = float((crystal.depth(fine) > 0).sum()) * (voxel / 4) ** 3
    return {**summary_table(strain_map(body, settings)), "volume_m3": solid}


def measure(folder: Path, crystals: Sequence[Crystal], experiment: Experiment, hours: Sequence[float]) -> list[Path]:
    """Write one raw scan per crystal."""
    angle = experiment.geometry.sample[0].angle
    scans = []
    for number, (crystal, hour) in enumerate(zip(crystals, hours, strict=True)):
        frames, date = counts(crystal, experiment, number), BEGAN + datetime.timedelta(hours=hour)
        scans.append(write_scan(folder / f"t{number:02d}", frames, np.asarray(angle), experiment.geometry, 1, date=date))
    return scans


def follow(scans: Sequence[Path], folder: Path, experiment: Experiment, options: Sequence[str]) -> list[dict[str, str]]:
    """Run the public command on the scans; the rows of its table."""
    cell = f"strain.lattice=[{experiment.cell}]"
    command = ["series", *map(str, scans), "-o", str(folder), "--set", "strain.reflection=[1,1,1]", "--set", cell, *options]
    if cli.main(command):
        raise SystemExit(f"braggshot {' '.join(command)} failed")
    with (folder / "series.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def voxel_of(folder: Path, rows: Sequence[dict[str, str]]) -> float:
    """Voxel edge of the strain maps [m]."""
    from braggshot.io import results

    found = results.read_strain(folder / f"{rows[0]['name']}.cxi")
    assert found is not None
    return float(found.basis[0, 0])


CURVES = (
    ("volume_m3", "volume [µm³]", 1e18),
    ("lattice_parameter_m", "lattice parameter [Å]", 1e10),
    ("strain_std", "spread of strain [10⁻⁴]", 1e4),
    ("dislocation_voxels", "dislocated voxels", 1.0),
)


def compared(rows: Sequence[dict[str, str]], true: Sequence[dict[str, float]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Recovered and true values by column; not a number where a scan failed."""
    found = {name: np.array([float(row[name] or "nan") for row in rows]) for name, _, _ in CURVES}
    return {name: (values, np.array([float(t[name]) for t in true])) for name, values in found.items()}


def report(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """One line of the errors per curve: largest and mean relative error, correlation."""
    lines = []
    for name, scale_name, scale in CURVES:
        found, true = curves[name]
        error = np.abs(found - true)
        relative = error / np.maximum(np.abs(true), 1e-30)
        same = np.corrcoef(found, true)[0, 1] if np.ptp(true) > 0 and np.ptp(found) > 0 else np.nan
        head = f"{scale_name}: true {_list(true * scale)}, recovered {_list(found * scale)}"
        lines.append(
            f"{head}; error at most {100 * relative.max():.2g} %, mean {100 * relative.mean():.2g} %; correlation {same:.3f}"
        )
    return "\n".join(lines)


def _list(values: np.ndarray) -> str:
    return " ".join(f"{value:.5g}" for value in values)


def plot(path: Path, x: Sequence[float], label: str, curves: dict[str, tuple[np.ndarray, np.ndarray]], title: str) -> None:
    """Truth as a line, recovered values as dots."""
    from matplotlib.figure import Figure

    shown = [curve for curve in CURVES if np.nanmax(np.abs(curves[curve[0]])) > 0]
    figure = Figure(figsize=(3.1 * len(shown), 2.7), layout="constrained", facecolor="white")
    for axes, (name, text, scale) in zip(figure.subplots(1, len(shown), squeeze=False).flat, shown, strict=True):
        found, true = curves[name]
        axes.plot(x, true * scale, color="0.45", linewidth=1.5, label="truth")
        axes.plot(x, found * scale, "o", color="#1f5fa8", markersize=5, label="recovered")
        axes.set(xlabel=label, ylabel=text)
        axes.ticklabel_format(axis="y", useOffset=False)
        if np.ptp(true) < 1e-6 * abs(true.mean()) and np.ptp(found) > np.ptp(true):  # a constant is not drawn as noise
            axes.set_ylim(0.9 * true.mean() * scale, 1.1 * true.mean() * scale)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=90)
