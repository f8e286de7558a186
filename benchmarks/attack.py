"""Attack what is read: damaged files of every format, damaged chunks of compressed HDF5 datasets, damaged messages of streams.

    python attack.py files --kinds 600                     # each kind in a process of its own, with limits of memory and time
    python attack.py files --kinds 600 --first-seed 600    # the next ones
    python attack.py chunks --count 100000                 # in this process: a crash ends it
    python attack.py messages --count 1000000 --only tiled # so many that are damaged, in this process

A kind is one file and one damage, told by its seed. It is met well where every command on it succeeds or says one clear line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "samples"))

from attack_messages import ATTACKED, attack_messages, mutate

MEMORY, SECONDS, LONGEST = 2_500_000_000, 20, 1500
RECORDING, TABLE, NETWORK = "recording", "table", "network"


@dataclass(frozen=True)
class Target:
    """What a command is given, the files that may be damaged, and what it is."""

    path: Path
    files: tuple[Path, ...]
    kind: str


def write_target(kind: str, folder: Path) -> Target:
    """Write a good small input of a kind into an empty folder."""
    import sample_inputs

    if kind in sample_inputs.SAMPLES:
        sample = sample_inputs.SAMPLES[kind](folder)
        return Target(Path(sample.path), tuple(sorted(path for path in folder.rglob("*") if path.is_file())), kind)
    files = {
        "result": "a.cxi", "edf": "a.edf", "cbf": "a.cbf", TABLE: "a.toml", NETWORK: "a.safetensors",
        RECORDING: "a",
    }  # fmt: skip
    path = folder / files[kind]
    WRITERS[kind](path)
    return Target(path, tuple(sorted(path.rglob("*"))) if path.is_dir() else (path,), kind)


def _write_result(path: Path) -> None:
    from sample_reconstruction import sample_reconstruction

    from braggshot.io import results

    results.write(path, sample_reconstruction())


def _write_recording(path: Path) -> None:
    from sample_inputs import SHAPE, draw_counts

    from braggshot.io.formats.recorded import Plan, Recorder
    from braggshot.volumes import Frame

    recorder = Recorder(path, Plan("scan", SHAPE[1:], np.dtype("i4"), SHAPE[0]))
    for index, image in enumerate(draw_counts()):
        recorder.add(Frame(image=image, index=index))
    recorder.end()


def _write_fabio(path: Path) -> None:
    from fabio.cbfimage import CbfImage
    from fabio.edfimage import EdfImage
    from sample_inputs import draw_counts

    if path.suffix == ".cbf":
        CbfImage(data=draw_counts()[4]).write(str(path))
        return
    image = EdfImage(data=draw_counts()[0])
    for other in draw_counts()[1:]:
        image.append_frame(data=other)
    image.write(str(path))


def _write_table(path: Path) -> None:
    path.write_text('[prepare]\nbinning = [1, 1, 1]\n[phasing]\nmethod = "iterative"\nstarts = 2\n[output]\nformats = ["cxi"]\n')


def _write_network(path: Path) -> None:
    from braggshot.nn.weights import locate

    shutil.copy(locate("flagship"), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "result": _write_result, "edf": _write_fabio, "cbf": _write_fabio, TABLE: _write_table,
    NETWORK: _write_network, RECORDING: _write_recording,
}  # fmt: skip


def damage(target: Target, random: np.random.Generator) -> str:
    """Damage a target in one way; return the way in words."""
    path = target.files[random.integers(len(target.files))]
    ways = [*BYTES, *PLACES]
    if h5py.is_hdf5(path):
        ways += [*HDF5] * 2
    elif path.suffix in {".spec", ".fio", ".toml", ".json", ""}:
        ways += [*TEXT] * 3
    elif path.suffix in {".npz", ".npy"}:
        ways += [*NUMPY] * 3
    way = ways[random.integers(len(ways))]
    said = way(path, random)
    return f"{target.kind} {path.name} {way.__name__} {said or ''}"


def truncated(path: Path, random: np.random.Generator) -> str:
    size = int(random.integers(path.stat().st_size + 1))
    os.truncate(path, size)
    return str(size)


def _edit(change: Callable[[bytearray, np.random.Generator], None]) -> Callable[[Path, np.random.Generator], None]:
    def way(path: Path, random: np.random.Generator) -> None:
        content = bytearray(path.read_bytes())
        change(content, random)
        path.write_bytes(content)

    way.__name__ = change.__name__
    return way


def flipped(content: bytearray, random: np.random.Generator) -> None:
    for _ in range(random.integers(1, 30)):
        content[random.integers(max(1, len(content)))] = random.integers(256)


def flipped_head(content: bytearray, random: np.random.Generator) -> None:
    for _ in range(random.integers(1, 6)):
        content[random.integers(min(2048, len(content)))] = random.integers(256)


def zeroed(content: bytearray, random: np.random.Generator) -> None:
    first = random.integers(len(content))
    content[first : first + 256] = bytes(len(content[first : first + 256]))


def huge_number(content: bytearray, random: np.random.Generator) -> None:
    first = random.integers(min(4096, len(content)))
    content[first : first + 8] = (b"\xff" * 8, b"\0\0\0\0\1\0\0\0", b"\x7f" * 8)[random.integers(3)]


def lengthened(content: bytearray, random: np.random.Generator) -> None:
    content += random.bytes(1000)


def not_utf8(content: bytearray, random: np.random.Generator) -> None:
    first = random.integers(len(content))
    content[first:first] = b"\xe9\xff\xfe"


def emptied(content: bytearray, random: np.random.Generator) -> None:
    content.clear()


BYTES = [
    truncated,
    *map(_edit, (flipped, flipped_head, flipped_head, zeroed, huge_number, huge_number, lengthened, not_utf8, emptied)),
]


def fifo(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path)


def unix_socket(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):
        one.bind(path.name)


def device(path: Path, random: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def sparse(path: Path, random: np.random.Generator) -> None:
    os.truncate(path, path.stat().st_size + 10**10)


PLACES = [fifo, folder, loop, unix_socket, device, sparse]


def replaced(path: Path, random: np.random.Generator) -> str:
    """Replace a dataset or an attribute of an HDF5 file by something else."""
    names: list[str] = []
    with h5py.File(path, "r+") as file:
        file.visit(names.append)
        if not names:
            return "nothing to replace"
        name = names[random.integers(len(names))]
        what = list(OTHERS)[random.integers(len(OTHERS))]
        old = file.get(name)
        shape = getattr(old, "shape", None) or (3,)
        parent, last = (file[name.rpartition("/")[0]] if "/" in name else file), name.rpartition("/")[2]
        with contextlib.suppress(KeyError):
            del parent[last]
        OTHERS[what](parent, last, shape)
    return f"{name} by {what}"


def _self_virtual(group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    layout = h5py.VirtualLayout(shape, "i4")
    layout[...] = h5py.VirtualSource(".", f"{group.name.rstrip('/')}/{name}", shape, dtype="i4")
    group.create_virtual_dataset(name, layout)


def _link_to_fifo(group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    place = Path(group.file.filename).parent / "pipe"
    if not place.exists():
        os.mkfifo(place)
    group[name] = h5py.ExternalLink("pipe", "/a")


def _virtual_fifo(group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    place = Path(group.file.filename).parent / "pipe"
    if not place.exists():
        os.mkfifo(place)
    layout = h5py.VirtualLayout(shape, "i4")
    layout[...] = h5py.VirtualSource("pipe", "a", shape, dtype="i4")
    group.create_virtual_dataset(name, layout)


def _huge(shape: tuple[int, ...], dtype: Any = "f4", **options: Any) -> Callable[[h5py.Group, str, tuple[int, ...]], None]:
    def put(group: h5py.Group, name: str, _: tuple[int, ...]) -> None:
        data = group.create_dataset(name, shape, dtype, **options)
        if "chunks" in options:
            data[(0,) * len(shape)] = 1

    return put


def _put(value: Callable[[tuple[int, ...]], Any]) -> Callable[[h5py.Group, str, tuple[int, ...]], None]:
    def put(group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
        group[name] = value(shape)

    return put


def _nested(group: h5py.Group, name: str, _: tuple[int, ...]) -> None:
    for _number in range(3000):
        group = group.create_group(name)


def _outside(group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    group.create_dataset(name, shape, "u1", external=[("/etc/passwd", 0, 10**9)])


OTHERS: dict[str, Callable[[h5py.Group, str, tuple[int, ...]], None]] = {
    "text": _put(lambda shape: "no number"),
    "texts": _put(lambda shape: np.array([b"a", b"\xff\xfe"] * 3)),
    "group": lambda group, name, shape: group.create_group(name) and None,
    "nothing": lambda group, name, shape: None,
    "1d": _put(lambda shape: np.arange(5.0)),
    "2d": _put(lambda shape: np.ones((4, 5))),
    "5d": _put(lambda shape: np.ones((2, 2, 2, 2, 2))),
    "no values": _put(lambda shape: np.zeros((0, 3, 3))),
    "empty": _put(lambda shape: h5py.Empty("f4")),
    "nan": _put(lambda shape: np.full(shape, np.nan)),
    "negative": _put(lambda shape: np.full(shape, -7)),
    "1e38": _put(lambda shape: np.full(shape, 3e38, "f4")),
    "complex": _put(lambda shape: np.full(shape, 1j)),
    "compound": _put(lambda shape: np.zeros(shape, [("a", "f4"), ("b", "i4")])),
    "bad json": _put(lambda shape: '{"a": [1, '),
    "number": _put(lambda shape: 5),
    "soft loop": lambda group, name, shape: group.__setitem__(name, h5py.SoftLink(f"{group.name.rstrip('/')}/{name}")),
    "link to nothing": lambda group, name, shape: group.__setitem__(name, h5py.ExternalLink("gone.h5", "/a")),
    "link to fifo": _link_to_fifo,
    "virtual itself": _self_virtual,
    "virtual fifo": _virtual_fifo,
    "huge": _huge((10**6, 10**4, 10**4), chunks=(1, 100, 100)),
    "huge, unwritten": _huge((10**5, 10**4, 10**4)),
    "huge chunk": _huge((2, 2**15, 2**14), chunks=(1, 2**15, 2**14), compression="gzip"),
    "a billion texts": _huge((10**9,), h5py.string_dtype(), chunks=(1000,)),
    "a billion numbers": _huge((10**9,), chunks=(1000,)),
    "nested": _nested,
    "kept outside": _outside,
}


def rewritten(path: Path, random: np.random.Generator) -> str:
    """Write another array into a numpy file, or a head that declares another size."""
    choices = [
        np.array("text"), np.ones(4), np.ones((2, 2, 2, 2, 2)), np.full((3, 4, 5), np.nan), np.ones((3, 4, 5), complex),
        np.array([{}], object), np.zeros((0, 4, 5)), np.full((3, 4, 5), 3e38, "f4"),
    ]  # fmt: skip
    number = int(random.integers(len(choices) + 2))
    if number < len(choices):
        np.savez(path, data=choices[number]) if path.suffix == ".npz" else np.save(path, choices[number])
        return str(number)
    import io
    import zipfile

    head, declared = io.BytesIO(), (10**6, 10**4, 10**4) if number == len(choices) else (-3, 4, 5)
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": declared})
    if path.suffix == ".npy":
        path.write_bytes(head.getvalue() + bytes(240))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.npy", head.getvalue() + bytes(10**8))
    return f"declares {declared}"


def line_changed(path: Path, random: np.random.Generator) -> str:
    """Change one line of a text file."""
    lines = path.read_bytes().split(b"\n")
    number = int(random.integers(len(lines)))
    words = lines[number].split(b" ")
    odd = [
        b"", b"a b c d", b"\xe9\xff", b"[" * 10000, b"#C " + b"x" * 5_000_000, b"1e999", b"-5", b"nan", b'{"a":', b"9" * 5000,
        b"a = " + b"[" * 5000, b"#UIMR5 a b c d", b"#S 54", b"#L", b"%d", b"\x1b[2J", b"[prepare]\nbinning = 'x'",
    ]  # fmt: skip
    put = odd[random.integers(len(odd))]
    if random.integers(2) and len(words) > 1:
        words[random.integers(len(words))] = put
        lines[number] = b" ".join(words)
    else:
        lines[number] = put
    path.write_bytes(b"\n".join(lines))
    return f"line {number}: {put[:20]!r}"


HDF5, NUMPY, TEXT = [replaced], [rewritten], [line_changed]


def commands(target: Target) -> dict[str, Callable[[], Any]]:
    """List what is tried on a target, by name."""
    from braggshot import config, load_result
    from braggshot.cli.info import find_result
    from braggshot.cli.reconstruct import print_result
    from braggshot.io.registry import describe, read
    from braggshot.nn.weights import load_network
    from braggshot.output import summary
    from braggshot.pipeline import resolve
    from braggshot.postprocess import read_object
    from braggshot.prepare import prepare

    path = target.path

    def shown() -> None:
        result = load_result(path)
        json.dumps(summary(result.reconstruction, "a", "a"))
        print_result(result.reconstruction, [])

    if target.kind == TABLE:
        return {"settings": lambda: resolve(config.read_toml(path))}
    if target.kind == NETWORK:
        return {"network": lambda: load_network(path)}
    return {
        "frames": lambda: read(path).frames[...],
        "describe": lambda: json.dumps(describe(path)),
        "prepare": lambda: prepare(read(path)),
        "find": lambda: find_result(path, None),
        "result": shown,
        "object": lambda: read_object(path),
    }


def judge(target: Target) -> str:
    """Try every command on a target; return "" if all are met well, else what was not."""
    from braggshot.errors import BraggshotError

    for name, command in commands(target).items():
        try:
            command()
        except BraggshotError as error:
            if "\n" in str(error) or len(str(error)) > LONGEST:
                return f"bug: {name}: a line of {len(str(error))} characters: {str(error)[:100]!r}"
        except MemoryError:
            return f"memory: {name}"
        except BaseException as error:
            import traceback

            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"bug: {name}: {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"[:600]
    return ""


def try_kind(seed: int, kinds: list[str]) -> tuple[str, str]:
    """Damage one file and try it in a child; return the damage in words, and what went wrong."""
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        place = Path(name) / "in"
        place.mkdir()
        target = write_target(kinds[seed % len(kinds)], place)
        said = damage(target, random)
        answer = Path(name) / "answer"
        child = os.fork()
        if child == 0:
            held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, held + MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            try:
                answer.write_text(judge(target) or "well")
            finally:
                os._exit(0)
        return said, _wait(child, answer)


def _wait(child: int, answer: Path) -> str:
    began = time.monotonic()
    while time.monotonic() - began < SECONDS:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return f"signal: {signal.Signals(os.WTERMSIG(status)).name}"
            found = answer.read_text() if answer.exists() else "bug: no answer"
            return "" if found == "well" else found
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"hang: more than {SECONDS} s"


def attack_files(first: int, number: int, only: list[str]) -> int:
    """Try kinds of damaged files; return how many were met badly."""
    import sample_inputs

    for kind in ("cxi", "edf", "result", TABLE, NETWORK):  # what is imported and compiled here, the children have at once
        with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            judge(write_target(kind, Path(name)))
    kinds = only or [*sample_inputs.SAMPLES, *WRITERS, "result", TABLE]
    met: Counter[str] = Counter()
    for seed in range(first, first + number):
        said, wrong = try_kind(seed, kinds)
        met[wrong.partition(":")[0] or "well"] += 1
        if wrong:
            print(f"{seed}: {said}: {wrong}", flush=True)
    print(", ".join(f"{count} {name}" for name, count in sorted(met.items())), f"of {number} kinds")
    return number - met["well"]


FILTERS: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip"}, "lzf": {"compression": "lzf"},
    "gzip + fletcher32": {"compression": "gzip", "fletcher32": True},
    "fletcher32": {"fletcher32": True}, "shuffle": {"shuffle": True}, "szip": {"compression": "szip"},
    "bslz4": dict(hdf5plugin.Bitshuffle(cname="lz4")), "bszstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")), "blosc": dict(hdf5plugin.Blosc()),
    "blosc zstd": dict(hdf5plugin.Blosc(cname="zstd")), "blosc bits": dict(hdf5plugin.Blosc(shuffle=2)),
    "lz4": dict(hdf5plugin.LZ4()), "zstd": dict(hdf5plugin.Zstd()), "bzip2": dict(hdf5plugin.BZip2()),
}  # fmt: skip


def attack_chunks(first: int, number: int, filters: list[str]) -> int:
    """Read damaged chunks in this process; it ends by a signal where one is met badly."""
    from braggshot.errors import FormatError
    from braggshot.io.chunks import read_region

    random, met, began = np.random.default_rng(first), Counter(), time.perf_counter()
    counts = random.poisson(3, (1, 64, 96)).astype("u4")
    with h5py.File("attack", "w", driver="core", backing_store=False) as file:
        data = {kind: file.create_dataset(kind, data=counts, chunks=counts.shape, **FILTERS[kind]) for kind in filters or FILTERS}
        file.flush()
        good = {kind: one.id.read_direct_chunk((0, 0, 0))[1] for kind, one in data.items()}
        for turn in range(number):
            kind = list(data)[turn % len(data)]
            data[kind].id.write_direct_chunk((0, 0, 0), mutate(good[kind], random))
            try:
                same = np.array_equal(read_region(data[kind]), counts)
                met["read as it was" if same else "read otherwise"] += 1
            except FormatError:
                met["refused"] += 1
    spent = time.perf_counter() - began
    print(", ".join(f"{count} {name}" for name, count in sorted(met.items())), f"of {number} chunks; {number / spent:.0f} a second")
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    files = parts.add_parser("files", help="damaged files of every format")
    files.add_argument("--kinds", type=int, default=600, help="number of kinds")
    files.add_argument("--first-seed", type=int, default=0)
    files.add_argument("--only", nargs="*", default=[], help="formats")
    chunks = parts.add_parser("chunks", help="damaged chunks of HDF5 datasets")
    chunks.add_argument("--count", type=int, default=20000)
    chunks.add_argument("--first-seed", type=int, default=0)
    chunks.add_argument("--only", nargs="*", default=[], help="filters")
    messages = parts.add_parser("messages", help="damaged messages of streams")
    messages.add_argument("--count", type=int, default=20000)
    messages.add_argument("--first-seed", type=int, default=0)
    messages.add_argument("--only", nargs="*", default=[], choices=[*ATTACKED], help="streams")
    given = parser.parse_args(arguments)
    if given.part == "messages":
        return attack_messages(given.first_seed, given.count, given.only)
    if given.part == "files":
        return int(attack_files(given.first_seed, given.kinds, given.only) > 0)
    return attack_chunks(given.first_seed, given.count, given.only)


if __name__ == "__main__":
    sys.exit(main())
