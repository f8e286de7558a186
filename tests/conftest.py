"""The order of the tests: files go to the workers one after the other, so the longest come first and no core waits for the last."""

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
