"""What the tests of live sources need of their process."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _denormal_numbers():
    """Phasing flushes denormal numbers to zero for the whole process, and hypothesis does not draw floats without them."""
    torch.set_flush_denormal(False)
