"""A program that reads HDF5 files beside its main thread ends when it should."""

import subprocess
import sys

import h5py
import numpy as np

READING = """
import sys, threading, time
import h5py
import braggshot.io.hdf5

def read():
    while True:
        with h5py.File(sys.argv[1]) as file:
            [file[name][...] for name in file]

threading.Thread(target=read, daemon=True).start()
time.sleep(0.3)
"""


def test_a_program_ends_while_a_thread_reads(tmp_path):
    """Ctrl-C of `braggshot view` came while the table of the results was read, and the program never ended."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(20):
            file[f"data_{number}"] = np.zeros((8, 8))
    for _ in range(5):
        subprocess.run([sys.executable, "-c", READING, str(tmp_path / "a.h5")], check=True, timeout=15)
