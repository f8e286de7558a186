"""What every test may count on."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def _ieee():
    """Phasing flushes denormal numbers for good, and hypothesis refuses to draw floats then; so each test begins without that."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)
