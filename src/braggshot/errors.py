"""Errors that a user can cause, in words that a user can act on.

Every error that a user can cause is a `BraggshotError`; its text says what was found, what was expected and what to do. The
command line prints this text as one line and exits with status 1. Any other exception that a user sees is a bug.
"""

from __future__ import annotations


class BraggshotError(Exception):
    """Base class of all errors that a user can cause."""


class FormatError(BraggshotError):
    """A file cannot be read: its format is unknown or matches two readers, it is truncated, the scan number is wrong."""


class DataError(BraggshotError):
    """The numbers cannot be a Bragg peak: all zero, NaN, negative, two-dimensional, no peak, mask of another shape."""


class GeometryError(BraggshotError):
    """The geometry is missing or contradicts itself."""


class ConfigError(BraggshotError):
    """An unknown setting, or a value that a setting does not allow."""


class OutputError(BraggshotError):
    """A result cannot be written: no permission, disk full."""


class ClusterError(BraggshotError):
    """The machines of a cluster that do the work cannot be reached, or have left the cluster."""
