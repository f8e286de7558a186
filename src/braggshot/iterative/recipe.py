"""Parse the recipe language, in which ``3*(20*ER+180*HIO)+20*ER`` lists iterations from left to right.

::

    recipe = term { "+" term }
    term   = [ count "*" ] ( STEP | "(" recipe ")" )

A step is any name that `braggshot.iterative.algorithms.find_step` knows. ``SW`` (shrink-wrap), ``GROW`` (add a layer to the
support), ``DETWIN`` (break a mixture of twins), ``FLAT`` (even out the amplitude) and ``PSF`` (fit the point spread) act between
iterations. Brackets nest; spaces do not matter; names may be lower case.
"""

from __future__ import annotations

import re

from braggshot.errors import ConfigError
from braggshot.iterative.algorithms import find_step

# Pattern of one part of a recipe: a number, the name of a step, or one of the signs * + ( ).
_TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z]\w*)|([*+()]))")
_LONGEST = 1_000_000  # largest number of steps of a recipe


def parse_recipe(text: str) -> list[str]:
    """List the steps in the order they run, one name per iteration or action.

    Raises
    ------
    ConfigError : on a syntax error (with its place), an unknown step, a recipe without iterations or of absurd length.

    Examples
    --------
    >>> parse_recipe("2*(2*HIO+ER)+SW")
    ['HIO', 'HIO', 'ER', 'HIO', 'HIO', 'ER', 'SW']
    """
    tokens, place = [], 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if not match:
            raise _syntax(text, place, "a step, a number, '*', '+' or a bracket")
        tokens.append((match.group().strip(), match.start(match.lastindex or 0)))
        place = match.end()
    steps, rest = _terms(text, tokens)
    if rest:
        raise _syntax(text, rest[0][1], "'+' or the end")
    if not any(find_step(name)[1] for name in set(steps)):
        raise ConfigError(f"the recipe {text!r} has no iterations; a recipe such as 400*RAAR+200*ER has.")
    return steps


Tokens = list[tuple[str, int]]


def _terms(text: str, tokens: Tokens) -> tuple[list[str], Tokens]:
    steps, tokens = _term(text, tokens)
    while tokens and tokens[0][0] == "+":
        more, tokens = _term(text, tokens[1:])
        steps = steps + more
        if len(steps) > _LONGEST:
            raise ConfigError(f"the recipe {text!r} is longer than {_LONGEST} steps.")
    return steps, tokens


def _term(text: str, tokens: Tokens) -> tuple[list[str], Tokens]:
    count = 1
    if tokens and tokens[0][0].isdigit():
        count, tokens = int(tokens[0][0]), tokens[1:]
        if not tokens or tokens[0][0] != "*":
            raise _syntax(text, tokens[0][1] if tokens else len(text), "'*' after a number")
        tokens = tokens[1:]
    if not tokens:
        raise _syntax(text, len(text), "a step or '('")
    word, place = tokens[0]
    if word == "(":
        steps, tokens = _terms(text, tokens[1:])
        if not tokens or tokens[0][0] != ")":
            raise _syntax(text, tokens[0][1] if tokens else len(text), "')'")
    elif word[0].isalpha():
        steps = [word.upper()]
        find_step(word.upper())
    else:
        raise _syntax(text, place, "a step or '('")
    if count * len(steps) > _LONGEST:
        raise ConfigError(f"the recipe {text!r} is longer than {_LONGEST} steps.")
    return steps * count, tokens[1:]


def _syntax(text: str, place: int, expected: str) -> ConfigError:
    found = repr(text[place]) if place < len(text) else "the end"
    return ConfigError(f"the recipe {text!r} expects {expected} at character {place + 1}, found {found}.")
