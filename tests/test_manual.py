"""The manual shows no command that does not parse, no setting that is not there, and no page that nobody can find."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
import sys
import tomllib

import pytest
import typer
import yaml
from manual_pages import DOCS, FENCE, PAGES, ROOT, code_lines

from braggshot import cluster, config, pipeline, reflections, series, train
from braggshot.cli import app
from braggshot.crystals.sample import CrystalSettings
from braggshot.io.beamlines.instruments import GeometrySettings
from braggshot.io.registry import BUILT_IN, load_reader, option_names
from braggshot.live import config as live_config

LAB = DOCS / "lab"
COMMANDS = typer.main.get_command(app).commands
RESOLVERS = {
    "reconstruct": pipeline.resolve,
    "postprocess": pipeline.resolve,
    "series": series.resolve,
    "tensor": reflections.resolve,
    "live": live_config.resolve,
    "train": train.resolve,
    "simulate": lambda table: config.resolve(CrystalSettings, table),
}
STAGES = {stage for resolver in RESOLVERS.values() for stage in config.dump(resolver({}))}
READABLE = {"geometry", *itertools.chain(*(option_names(load_reader(known)) for known in BUILT_IN))}
NO_SETTINGS = {
    "py",
    "ipynb",
    "csv",
    "tif",
    "png",
    "gif",
    "html",
    "parquet",
    "align",
    "run",
}  # files and functions named like settings


def inline(text):
    """Code in a line of text."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def shown(path):
    """Every command of a page; those within a line only where they have arguments that are no placeholder."""
    text = path.read_text()
    lines = [re.sub(r"\s+>\s*\S+", "", line) for line in code_lines(text) if line.startswith("braggshot ")]
    lines += [code for code in inline(text) if re.match(r"braggshot [a-z]+ .*\S", code) and not re.search(r"\.\.\.|…|\|", code)]
    return lines


def settings(line):
    """The subcommand of a line and its --set."""
    _, name, *arguments = shlex.split(line, comments=True)
    return name, [after for before, after in itertools.pairwise(arguments) if before == "--set"]


LINES = [pytest.param(line, id=f"{path.stem}-{n}") for path in PAGES for n, line in enumerate(shown(path))]


def test_there_are_commands_to_check():
    assert len(LINES) > 60


@pytest.mark.parametrize("line", LINES)
def test_a_command_parses(line):
    _, name, *arguments = shlex.split(line.partition(" > ")[0], comments=True)
    assert name in COMMANDS, f"no subcommand {name}"
    COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize("line", [line for line in LINES if "--set" in line.values[0]])
def test_settings_exist(line):
    name, assignments = settings(line)
    table = config.parse_assignments(assignments)
    assert set(table.pop("input", {})) <= READABLE
    if name in RESOLVERS:
        RESOLVERS[name](table)
    else:
        assert not table


def known_names():
    return {key for resolver in RESOLVERS.values() for key in config._keys(type(resolver({})))} | {
        f"input.{name}" for name in READABLE
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_within_lines_exist(path):
    names = {re.split(r"[=\s]", code.removeprefix("--set ").strip("'"))[0] for code in inline(path.read_text())}
    named = {name for name in names if re.fullmatch(r"[a-z]+(\.[a-z_]+)+", name) and name.split(".")[0] in STAGES}
    files = {name for name in named if name.rpartition(".")[2] in NO_SETTINGS}
    assert named - files <= known_names()


BLOCK = re.compile(r"```(toml|python)\n(.*?)```", re.DOTALL)
BLOCKS = [(page, kind, body) for page in PAGES for kind, body in BLOCK.findall(page.read_text())]


@pytest.mark.parametrize("body", [pytest.param(body, id=page.stem) for page, kind, body in BLOCKS if kind == "toml"])
def test_a_shown_settings_file_is_right(body):
    table = tomllib.loads(body)
    if "angles_deg" in table:
        assert config.resolve(GeometrySettings, table)
    elif "data" in table:
        assert train.resolve(table)
    elif "cluster" in table:
        assert cluster.resolve(table)
    elif "project" not in table:
        assert pipeline.resolve(table)


@pytest.mark.parametrize("body", [pytest.param(body, id=page.stem) for page, kind, body in BLOCKS if kind == "python"])
def test_shown_python_compiles_and_imports_what_is_there(body):
    tree = ast.parse(body)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)


def pages_of(navigation):
    for entry in navigation:
        for value in entry.values():
            yield from pages_of(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation():
    listed = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(listed) == len(set(listed))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.parent != LAB} == set(listed)


def test_the_notebook_lists_its_pages():
    listed = re.findall(r"\]\((\w+\.md)\)", (LAB / "README.md").read_text())
    assert sorted(listed) == sorted(page.name for page in LAB.glob("*.md") if page.name != "README.md")


def links(text):
    """Targets of the links and pictures of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", FENCE.sub("", text)))


def anchors(text):
    """What the headings of a page are called in a link, in the repository and in the built manual alike."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    broken = []
    for link in links(path.read_text()):
        target, _, anchor = link.partition("#")
        page = path.parent / target if target else path
        if link.startswith("http"):
            continue
        if not page.exists() or (anchor and anchor not in anchors(page.read_text())):
            broken.append(link)
    assert broken == []


def test_the_manual_is_short():
    """A user can read it; what was measured on the way stands in the notebook, what the program says in the reference.

    18 000 words, 3 000 of the pages that explain words, numbers and faults, and how to measure, and 1 500 of what is checked and
    corrected in a scan.
    """
    generated = DOCS / "howto" / "beamlines.md"
    pages = [ROOT / "README.md", *DOCS.glob("*.md"), *(page for page in (DOCS / "howto").glob("*.md") if page != generated)]
    assert sum(len(page.read_text().split()) for page in pages) <= 22_500


def test_nothing_is_loaded_from_elsewhere():
    """Neither a page's text nor the configuration names a script, style or picture of another host."""
    text = (ROOT / "mkdocs.yml").read_text() + "".join(page.read_text() for page in PAGES)
    assert not re.findall(r"(?:src=|!\[[^\]]*\]\(|- )[\"']?https?://", text)
    assert "font: false" in text


@pytest.fixture
def generate(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield __import__("generate")
    sys.modules.pop("generate")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_says_what_the_program_says(generate, path):
    text = path.read_text()
    assert text.count("<!-- generate: ") == text.count("<!-- end -->") == len(generate.MARK.findall(text))
    assert generate.written(text) == text, "make reference writes it anew"


def test_the_reference_has_each_command_setting_and_format(generate):
    commands = generate.commands()
    assert all(f"\n## {name}\n" in commands for name in COMMANDS)
    assert "| `--starts` | integer |  | Random starts; implies --method iterative (default 10). |" in commands
    assert "| `--seed` | integer | `0` |" in commands
    assert "`6*(50*HIO+80*RAAR+30*ER)+100*ER`" in commands
    settings = generate.settings("braggshot.pipeline:Settings")
    names = set(config._keys(pipeline.Settings)) - {"input"}
    assert {name for name in names if f"`{name}`" not in settings and f"### {name}\n" not in settings} == set()
    assert '| `prepare.binning` | `"auto"` | raw voxels per voxel' in settings
    assert "| `energy_ev` | required |" in generate.settings("braggshot.io.beamlines.instruments:GeometrySettings")
    assert all(f"| `{known.name}` |" in generate.formats() for known in BUILT_IN)


def test_every_setting_says_what_it_is(generate):
    tables = ("braggshot.pipeline:Settings", "braggshot.series.settings:SeriesConfig", "braggshot.live.config:LiveConfig",
              "braggshot.nn.training:TrainConfig", "braggshot.nn.datasets:DataConfig")  # fmt: skip
    rows = [line for table in tables for line in generate.settings(table).splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []


def test_docstrings_become_markdown(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import docstrings

    text = (
        "Sum.\n\n.. math::\n    a + b\n\n==  ==\nA   1\n==  ==\n\nLayout::\n\n    x\n\n"
        "Parameters\n----------\na : first [m]\nb : second\n    line\n\n"
        "Returns\n-------\nc : sum\n\nRaises\n------\nValueError : if not\n"
    )
    found = docstrings.spread(docstrings.markdown(text))
    assert '<img class="formula" alt="a + b" src="data:image/svg+xml;base64,' in found
    assert docstrings.formula(r"\nothing{x}").startswith("```text\n")
    assert "```text\n==  ==\nA   1\n==  ==\n```" in found
    assert "Layout:\n" in found
    assert "a\n    first [m]\nb\n    second\n    line" in found
    assert found.index("- c : sum") < found.index("Parameters")
    assert "ValueError\n    if not" in found
