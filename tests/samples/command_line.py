"""The program as a shell calls it, in this process."""

from __future__ import annotations

from braggshot import cli

QUICK = ["--starts", "2", "--recipe", "2*(6*HIO+2*ER)", "--set", "phasing.partial_coherence=off"]


def run(*arguments):
    """The exit status of a command."""
    return cli.main([str(argument) for argument in arguments])
