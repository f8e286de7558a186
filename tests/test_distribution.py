"""What users install: the wheel and the sdist hold what is needed and nothing else, and the program runs from the wheel alone."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from braggshot import doctor

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = f"braggshot-{PROJECT['version']}"
DATA = {"py.typed", "report/page.css", "viewer/page.css", "weights/flagship.safetensors"}
RECIPE = ROOT / "packaging" / "conda" / "recipe.yaml"
CONDA_NAMES = {"matplotlib": "matplotlib-base", "torch": "pytorch"}
"""What differs from the names for pip: parts without their graphical interfaces, and torch."""


def build(kind, source, into):
    """The path of what hatchling makes of a source tree; with the installed one, so that nothing is downloaded."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(into.iterdir())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    inside = {path for path in zipfile.ZipFile(wheel).namelist() if not path.startswith(f"{NAME}.dist-info/")}
    files = (path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert inside == {str(path.relative_to(ROOT / "src")) for path in files}
    assert {f"braggshot/{path}" for path in DATA} < inside
    assert f"{NAME}.dist-info/licenses/LICENSE" in zipfile.ZipFile(wheel).namelist()


def test_the_sdist_holds_the_source_and_no_tests_manual_or_data(sdist):
    with tarfile.open(sdist) as archive:
        inside = {path.removeprefix(f"{NAME}/") for path in archive.getnames()}
    beside = {path for path in inside if not path.startswith("src/braggshot/")}
    assert beside - {".gitignore"} == {
        "PKG-INFO", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt",
    }  # fmt: skip
    assert {f"src/braggshot/{path}" for path in DATA} < inside


def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    again = build("wheel", tmp_path / "source" / NAME, tmp_path / "wheel")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel in it, and an environment in which that, not the checkout, is braggshot."""
    place = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(place), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return place, {**os.environ, "PYTHONPATH": str(place)}


@pytest.mark.long
def test_the_program_runs_from_the_wheel(installed, tmp_path):
    place, environment = installed
    where = [sys.executable, "-c", "import braggshot; print(braggshot.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    assert found.strip() == str(place / "braggshot" / "__init__.py")
    command = ["sh", str(ROOT / "packaging" / "smoke.sh"), str(place / "bin" / "braggshot")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"package          {place / 'braggshot'}" in done.stdout
    assert str(place / "braggshot" / "weights" / "flagship.safetensors") in done.stdout


def test_versions_agree():
    """The version is in pyproject.toml; the recipe repeats it, and a citation may, once there is a release to cite."""
    recipe = yaml.safe_load(RECIPE.read_text())
    assert recipe["context"]["version"] == PROJECT["version"]
    headings = re.findall(r"^## \[(.+)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    released = dict(headings[1:])
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    if PROJECT["version"] in released:
        assert cited["version"] == PROJECT["version"]
        assert released[PROJECT["version"]].strip(" -") == str(cited["date-released"])
    else:
        assert not {"version", "date-released"} & set(cited)


def test_supported_pythons_agree():
    first = PROJECT["requires-python"].removeprefix(">=")
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert named[0] == first == yaml.safe_load(RECIPE.read_text())["context"]["python_min"]
    assert f"python:{first}-slim" in (ROOT / "packaging" / "Containerfile").read_text()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == named


def test_hooks_are_checks_of_make_test_and_fetch_nothing():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    recipe = (ROOT / "Makefile").read_text()
    for hook in local["hooks"]:
        tool = hook["entry"].removeprefix(".venv/").split(" --force")[0].split(" tests/")[0].replace("bin/", "$(BIN)/")
        assert tool in recipe


def test_make_says_what_it_installs_and_how_long_steps_take():
    said = subprocess.run(
        ["make", "-n", "-W", "pyproject.toml", "test"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    lines = [line for line in said.splitlines() if not line.startswith("touch")]
    for before, after in itertools.pairwise(lines):
        if re.search(r"pip install|/mypy|/pytest|/mkdocs", after):
            assert before.startswith("printf '== "), f"nothing is said before: {after}"
    assert re.search(r"'test: .*\d GB", said)


def test_the_recipe_needs_what_the_package_needs():
    wanted = {need.name: str(need.specifier) for need in map(Requirement, PROJECT["dependencies"])}
    listed = dict(line.split(" ", 1) for line in yaml.safe_load(RECIPE.read_text())["requirements"]["run"])
    assert listed.pop("python") == ">=${{ python_min }}"
    assert listed == {CONDA_NAMES.get(name, name): specifier for name, specifier in wanted.items()}


def test_the_recipe_renders():
    rattler_build = pytest.importorskip("rattler_build")
    (rendered,) = rattler_build.Stage0Recipe.from_yaml(RECIPE.read_text()).render()
    recipe = rendered.recipe.to_dict()
    assert "python >=3.11" in recipe["requirements"]["run"]
    assert all((ROOT / path).is_file() for test in recipe["tests"] for path in test.get("files", {}).get("source", ()))
    assert all((ROOT / path).is_file() for path in recipe["about"]["license_file"])


def instructions(text):
    """Word and rest of each instruction of a Containerfile."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line.strip()]


def test_the_container_copies_what_is_there_and_runs_as_nobody_special():
    steps = instructions((ROOT / "packaging" / "Containerfile").read_text())
    copied = [path for word, rest in steps if word == "COPY" and "--from" not in rest for path in rest.split()[:-1]]
    assert copied
    assert all((ROOT / path).exists() for path in copied)
    last = steps[max(number for number, (word, _) in enumerate(steps) if word == "FROM") :]
    assert dict(last)["USER"] not in {"0", "root"}
    assert dict(last)["ENTRYPOINT"] == '["braggshot"]'
    extras = next(rest.partition("=")[2] for word, rest in steps if word == "ARG" and rest.startswith("EXTRAS="))
    assert set(extras.split(",")) <= set(doctor.EXTRAS)


def test_the_container_file_is_linted():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(ROOT / "packaging" / "Containerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_extra_is_explained_and_pinned():
    offered = PROJECT["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(offered) - {"docs", "test", "dev", "interop"}
    pinned = {canonicalize_name(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    needs = map(Requirement, [*PROJECT["dependencies"], *(need for extra in offered.values() for need in extra)])
    assert {need.name for need in needs if canonicalize_name(need.name) not in pinned} == {"braggshot"}
    page = (ROOT / "docs" / "howto" / "installation.md").read_text()
    assert [extra for extra in doctor.EXTRAS if f"| `{extra}` |" not in page] == []


def test_the_lock_has_the_pinned_versions_with_hashes_and_no_torch():
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    locked = (ROOT / "packaging" / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    versions = dict(re.fullmatch(r"([^=]+)==(\S+)(?: ;[^-]*)?\s+--hash=sha256:[0-9a-f]{64}.*", line).groups() for line in locked)
    assert {name: version for name, version in versions.items() if pinned.get(name) != version} == {}
    direct = {canonicalize_name(Requirement(need).name) for need in PROJECT["dependencies"]} - {"torch"}
    assert direct <= set(versions)
    assert not [name for name in versions if name.startswith(("torch", "nvidia", "cuda", "triton"))]


def test_doctor_reads_the_extras_of_the_installed_package():
    assert requires("braggshot")
    assert {need.name for need in doctor.requirements_of("view")} == {"dash", "waitress"}
    assert {need.name for need in doctor.requirements_of("")} == {Requirement(need).name for need in PROJECT["dependencies"]}


def test_doctor_says_how_to_get_what_is_missing(monkeypatch):
    there = {"dash": "3.0", "waitress": "3.0.2", "numpy": "1.26.4"}
    monkeypatch.setattr(doctor, "version", lambda name: there[name] if name in there else missing())

    def missing():
        raise doctor.PackageNotFoundError

    assert doctor.describe_extra("view") == f"absent: pip install 'braggshot[view]' ({doctor.EXTRAS['view']}; lacks dash>=4.2)"
    assert doctor.describe_extra("series") == f"absent: pip install 'braggshot[series]' ({doctor.EXTRAS['series']})"
    assert doctor.describe_requirement(Requirement("numpy>=2")) == "1.26.4: pip install 'numpy>=2'"
    assert doctor.describe_requirement(Requirement("scipy>=1.13")) == "absent: pip install 'scipy>=1.13'"
    assert doctor.describe_requirement(Requirement("waitress>=3")) == "3.0.2"
