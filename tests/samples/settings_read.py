"""Which settings a piece of code reads, seen while it runs."""

import dataclasses
import sys
from contextlib import contextmanager

COPYING = {"dataclasses", "copy", "braggshot.config", "braggshot.phasing.config"}
"""Modules that read every field of a record, to copy or to check it."""


def tables(model, prefix=""):
    """Each settings record below `model`, by its dotted place: (place, class)."""
    yield prefix, type(model)
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if dataclasses.is_dataclass(value):
            yield from tables(value, f"{prefix}{field.name}.")


def leaves(model, prefix=""):
    """Dotted names of all settings."""
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


@contextmanager
def watched(classes):
    """Yield a set that fills with (class, field) as code reads fields of these records."""
    seen, before = set(), {}

    def watch(known):
        names = {field.name for field in dataclasses.fields(known)}

        def read(self, name):
            reader = sys._getframe(1).f_globals.get("__name__", "")
            if name in names and reader not in COPYING and not reader.startswith("pydantic"):
                seen.add((type(self), name))
            return object.__getattribute__(self, name)

        return read

    for known in classes:
        before[known] = known.__dict__.get("__getattribute__")
        known.__getattribute__ = watch(known)
    try:
        yield seen
    finally:
        for known, old in before.items():
            if old is None:
                del known.__getattribute__
            else:
                known.__getattribute__ = old
