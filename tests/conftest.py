"""What holds for all tests: random numbers repeat, and the longest files go to the workers first, so no core waits for the last."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

LONGEST = (
    "test_manual_runs.py",
    "test_browser.py",
    "test_notebooks.py",
    "test_volume.py",
    "test_auto.py",
    "test_run.py",
    "test_report.py",
    "test_postprocess.py",
    "test_settings_read.py",
    "test_scan.py",
)
"""Names of files that take from half a minute to two minutes."""


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))  # stable: the tests of a file keep their order


@pytest.fixture(autouse=True)
def _seed_random_numbers():
    """Start every test with the same random numbers, also those of weights of a new network: a test that failed fails again."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # for code under test that uses it; tests make generators of their own
    torch.manual_seed(0)
