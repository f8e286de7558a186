"""What the shells propose at TAB, in the shells themselves; neither that nor a first look at the program waits for torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
HEAVY = {"torch", "numpy", "scipy", "h5py", "matplotlib", "numba"}


def loaded(arguments, **environment):
    """Names of the modules that a call of the program brings in, and what it prints."""
    command = [sys.executable, "-X", "importtime", "-m", "braggshot", *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}, done.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "printed"),
    [
        (["--version"], {}, "braggshot 0."),
        (["--help"], {}, "reconstruct"),
        (["reconstruct", "--help"], {}, "--recipe"),
        ([], {"_BRAGGSHOT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "braggshot reconstruct --method "}, "oneshot"),
        ([], {"_BRAGGSHOT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "braggshot evaluate --suite s"}, "smoke"),
        ([], {"_BRAGGSHOT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "braggshot reconstruct --network f"}, "flagship"),
    ],
    ids=["version", "help", "help of a command", "method", "suite", "network"],
)
def test_nothing_heavy_is_imported(arguments, environment, printed):
    modules, text = loaded(arguments, **environment)
    assert printed in text
    assert not HEAVY & modules


SHELLS = {
    "bash": (
        ["bash", "--norc", "-c"],
        'eval "$(_BRAGGSHOT_COMPLETE=source_bash braggshot)"; read -ra COMP_WORDS <<< "$1"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); '
        '_braggshot_completion braggshot; printf "%s\\n" "${COMPREPLY[@]}"',
    ),
    "zsh": (
        ["zsh", "-f", "-c"],
        'autoload -Uz compinit; compinit -u -D; eval "$(_BRAGGSHOT_COMPLETE=source_zsh braggshot)"; '
        '_arguments() { print -r -- "$@" }; words=(${=1}); CURRENT=$#words; _braggshot_completion',
    ),
    "fish": (
        ["fish", "--no-config", "-c"],
        'env _BRAGGSHOT_COMPLETE=source_fish braggshot | source; test "$argv[1]" = -; and complete -C "$argv[2]"',
    ),
}


@pytest.mark.parametrize("shell", list(SHELLS))
@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        ("braggshot recons", {"reconstruct"}),
        ("braggshot reconstruct --method i", {"iterative"}),
        ("braggshot train --init f", {"flagship"}),
        ("braggshot info --format esrf", {"esrf_id01"}),
        ("braggshot stack --device c", {"cpu", "cuda"}),
    ],
)
def test_the_shell_itself_proposes(shell, line, proposed, tmp_path):
    command, script = SHELLS[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([*command, script, "-", line], env=environment, cwd=tmp_path, capture_output=True, text=True)
    found = {word for word in done.stdout.replace("*: :((", " ").replace(")", " ").replace('"', " ").split() if word in proposed}
    assert found == proposed, done.stdout + done.stderr


def test_completion_is_installed_for_a_shell(tmp_path):
    """Where each shell looks for it; the shell is the one that calls."""
    command = ["bash", "--norc", "-c", f"{BIN / 'braggshot'} --install-completion; true"]
    done = subprocess.run(command, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True)
    assert "bash completion installed" in done.stdout, done.stderr
    assert "_BRAGGSHOT_COMPLETE=complete_bash" in (tmp_path / ".bash_completions" / "braggshot.sh").read_text()
