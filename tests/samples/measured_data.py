"""Where the measured scans stand that are too large for the repository."""

from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
