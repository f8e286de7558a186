"""The gate that every file passes: what is refused, and in which words."""

from __future__ import annotations

from braggshot import gate


def test_free_memory_is_the_least_that_anybody_allows(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 4000 kB\nMemAvailable: 3000 kB\n")
    assert gate.free_memory(tmp_path, meminfo) == 3000 * 1024
    for name, text in (
        ("memory.max", "2000000\n"),
        ("memory.current", "900000\n"),
        ("memory.stat", "anon 5\ninactive_file 100000\n"),
    ):
        (tmp_path / name).write_text(text)
    assert gate.free_memory(tmp_path, meminfo) == 1_200_000
    (tmp_path / "memory.max").write_text("max\n")
    assert gate.free_memory(tmp_path, meminfo) == 3000 * 1024
    assert gate.free_memory() > 0
