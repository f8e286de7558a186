"""Kill jobs at random moments, or fill the disk under them: nothing is half-written or lost, and a second call goes on.

    python attack_jobs.py kills --number 300 --rows kills.jsonl     # SIGKILL at a moment drawn from the job's whole time
    python attack_jobs.py full --number 100 --rows full.jsonl       # Linux, as root: the output lies on a disk in memory
    python attack_jobs.py kills --number 300 --rows kills.jsonl     # a second call takes the seeds that are missing

The jobs are reconstruct, series, train and live, as commands in processes of their own, on crystals of 24 voxels with three
iterations. After each attack every file that can be seen must be whole, and the inputs as they were. The same command is then given
again: it must end well, leave all its files, and sweep what the attack left. A full disk must be told in one clear line.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from braggshot import config
from braggshot.crystals.sample import CrystalSettings, simulate_volume
from braggshot.io.formats import cxi

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "samples"))

QUICK = [
    f"--set=phasing.{said}"
    for said in ("method=iterative", "starts=1", "partial_coherence=off", "iterative.recipe=3*ER", "device=cpu")
]  # fmt: skip
PATIENCE = 300.0  # seconds after which a job hangs
LONG_ENOUGH = 20.0  # seconds after which a session that finds its scan done is told to end
FOUR = (".cxi", ".vti", ".png", ".html")


@dataclass(frozen=True)
class Job:
    """A command without its output folder, and the files that it leaves there; a session that `waits` ends only when told."""

    words: tuple[str, ...]
    leaves: tuple[str, ...]
    waits: bool = False


def write_inputs(folder: Path) -> dict[str, Job]:
    """Write the inputs of all jobs into a folder, and return the jobs by name."""
    from tiny_run import TINY

    for seed, name in enumerate("ab", start=5):
        about = CrystalSettings(shape=(24, 24, 24), counts=(1e5, 1e5), phase_range=(0.5, 1.0), shapes=("fcc",))
        cxi.write_data(folder / f"{name}.cxi", simulate_volume(seed, about)[1])
    (folder / "tiny.toml").write_text("\n".join(f"{name} = {config.to_toml(value)}" for name, value in stated(TINY).items()))
    a, b, tiny = (str(folder / name) for name in ("a.cxi", "b.cxi", "tiny.toml"))
    subprocess.run([*BRAGGSHOT, "emit", a, "--to", f"folder:{folder / 'frames'}", "--rate", "0"], check=True, capture_output=True)
    # A session that is started again leaves out what is done, and waits for the next scan: it has to be told to end.
    live = ("live", f"folder:{folder / 'frames'}", "--once", "--no-browser")
    return {
        "reconstruct": Job(("reconstruct", a, *QUICK), tuple(f"a{ending}" for ending in FOUR)),
        "series": Job(("series", a, b, *QUICK), ("a.cxi", "b.cxi", "series.csv", "series.png", "series.html")),
        "train": Job(("train", "--config", tiny), ("last.safetensors", "best.safetensors", "metrics.csv")),
        "live": Job((*live, *QUICK), (*(f"a_0001{ending}" for ending in FOUR), "events.jsonl"), waits=True),
    }


def stated(settings: Any) -> Any:
    """Return settings as nested dictionaries without what is None, which a TOML file cannot say."""
    if isinstance(settings, dict):
        return {name: stated(value) for name, value in settings.items() if value is not None}
    if isinstance(settings, tuple | list):
        return [stated(value) for value in settings]
    return stated(config.dump(settings)) if is_dataclass(settings) else settings


BRAGGSHOT = [sys.executable, "-m", "braggshot"]


@contextlib.contextmanager
def running(job: Job, output: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a job in a process group of its own, which is killed at the end."""
    process = subprocess.Popen(
        [*BRAGGSHOT, *job.words, "-o", str(output)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background inherits a deaf ear for Ctrl-C
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def finish(job: Job, output: Path) -> tuple[int, str, float]:
    """Run a job to its end: exit status, what it said on stderr, seconds."""
    begin = time.monotonic()
    with running(job, output) as process:
        try:
            said = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            return -1, "it hangs", PATIENCE
        return process.returncode, said, time.monotonic() - begin


def finish_waiting(job: Job, output: Path) -> tuple[int, str]:
    """Run a session until it ends, or until its files are there and its pictures made; then end it as Ctrl-C does."""
    begin = time.monotonic()
    with running(job, output) as process:
        while process.poll() is None and time.monotonic() - begin < PATIENCE:
            time.sleep(0.5)
            if all((output / name).is_file() for name in job.leaves) and time.monotonic() - begin > LONG_ENOUGH:
                os.kill(process.pid, signal.SIGINT)
                break
        try:
            said = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            return -1, "it hangs"
        return process.returncode, said


def digest(folder: Path) -> dict[str, str]:
    """Hash every file in a folder."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_hdf5(path: Path) -> None:
    """Read every value of an HDF5 file."""
    with h5py.File(path) as file:
        file.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)


def read_table(path: Path) -> None:
    """Read a table whose rows are all as long as its head; the last row of a growing table may be cut where the process died."""
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert all(len(row) == len(rows[0]) for row in rows[:-1]), "a row is cut"


def read_events(path: Path) -> None:
    """Read the events; the last line may be cut where the process died."""
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            json.loads(line)


def read_picture(path: Path) -> None:
    """Decode a picture."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.load()


def read_weights(path: Path) -> None:
    """Read every tensor of a network."""
    from safetensors.numpy import load_file

    load_file(path)


def ends_with(mark: str) -> Callable[[Path], None]:
    """Return a check that a text ends with a mark."""

    def check(path: Path) -> None:
        assert path.read_text().rstrip().endswith(mark), f"it does not end with {mark}"

    return check


def read_parquet(path: Path) -> None:
    """Read a table of columns."""
    from pyarrow import parquet

    parquet.read_table(path)


READERS: dict[str, Callable[[Path], Any]] = {
    ".cxi": read_hdf5, ".h5": read_hdf5, ".csv": read_table, ".jsonl": read_events, ".png": read_picture, ".gif": read_picture,
    ".safetensors": read_weights, ".html": ends_with("</html>"), ".vti": ends_with("</VTKFile>"), ".parquet": read_parquet,
    ".json": lambda path: json.loads(path.read_text()), ".toml": lambda path: config.read_toml(str(path)),
}  # fmt: skip


def find_damage(output: Path) -> list[str]:
    """Name each file that can be seen and cannot be read to its end; files and folders with a leading dot are not for users."""
    found = []
    for path in sorted(output.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(output).parts):
            continue
        if "tfevents" in path.name:  # a journal of another program, which is only added to
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:
            found.append(f"{path.name}: {type(error).__name__} {error}")
    return found


def find_leftovers(output: Path) -> list[str]:
    """Name the temporary files in a folder."""
    return [path.name for path in output.glob(".*-????????.*")]


def go_on(job: Job, output: Path) -> list[str]:
    """Give the command again, and name what is then not as it should be."""
    status, said = finish_waiting(job, output) if job.waits else finish(job, output)[:2]
    faults = [f"the second call ends with {status}: {said[-300:]}"] if status else []
    faults += [f"{name} is missing" for name in job.leaves if not (output / name).is_file()]
    return faults + find_damage(output) + [f"{name} is left over" for name in find_leftovers(output)]


def kill(job: Job, output: Path, random: np.random.Generator, seconds: float) -> dict[str, Any]:
    """Kill a job at a random moment of its `seconds`, look at its files, and run it again."""
    moment = float(random.uniform(0, seconds))
    with running(job, output) as process:
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        ended = process.poll() == 0
    return {"moment": moment / seconds, "ended": ended, "faults": find_damage(output) + go_on(job, output)}


def fill(job: Job, output: Path, random: np.random.Generator, seconds: float) -> dict[str, Any]:
    """Fill the disk at a random moment of a job, look at its files and words, free the disk, and run the job again."""
    moment, left = float(random.uniform(0, seconds)), int(random.integers(0, 2**17))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", output], check=True)
    try:
        with running(job, output) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=moment)
            ballast = fill_disk(output, left)
            said = process.communicate(timeout=PATIENCE)[1]
        faults, lines = find_damage(output), [line for line in said.splitlines() if line.strip()]
        if process.returncode not in (0, 1) or "bug" in said or "Traceback" in said:
            faults.append(f"it ends with {process.returncode}: {said[-300:]}")
        elif process.returncode and not lines:
            faults.append("it fails without a word")
        ballast.unlink()
        told = {"moment": moment / seconds, "left": left, "status": process.returncode, "said": lines[-1][:200] if lines else ""}
        return {**told, "faults": faults + go_on(job, output)}
    finally:
        subprocess.run(["umount", "-l", output], check=True)


def fill_disk(folder: Path, left: int) -> Path:
    """Write a file that leaves only `left` bytes of a disk free, and return its path."""
    path = folder / ".ballast"
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(2**16))
    os.truncate(path, max(path.stat().st_size - left, 0))
    return path


def attack(way: Callable[..., dict[str, Any]], first: int, number: int, rows: Path) -> int:
    """Attack the jobs in turn, a seed each; seeds in `rows` are done. Return how many attacks found a fault."""
    done = {json.loads(line)["seed"] for line in rows.read_text().splitlines()} if rows.exists() else set()
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        jobs = write_inputs(inputs)
        before, seconds = digest(inputs), {}
        for seed in range(first, first + number):
            if seed in done:
                continue
            name = list(jobs)[seed % len(jobs)]
            if name not in seconds:
                status, said, seconds[name] = finish(jobs[name], Path(folder) / f"whole-{name}")
                assert status == 0, f"{name}: {said}"
            output = Path(folder) / f"{name}-{seed}"
            output.mkdir()
            row = {"seed": seed, "job": name, **way(jobs[name], output, np.random.default_rng(seed), seconds[name])}
            row["faults"] += ["an input was changed"] if digest(inputs) != before else []
            with rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)
    wrong = [row for row in map(json.loads, rows.read_text().splitlines()) if row["faults"]]
    print(f"{len(rows.read_text().splitlines())} attacks, {len(wrong)} with faults")
    return len(wrong)


def main() -> None:
    """Read the options and attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=["kills", "full"])
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=20)
    parser.add_argument("--rows", type=Path, required=True)
    asked = parser.parse_args()
    sys.exit(attack({"kills": kill, "full": fill}[asked.way], asked.first_seed, asked.number, asked.rows) > 0)


if __name__ == "__main__":
    main()
