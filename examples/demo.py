"""``make demo``: the main job on a simulated raw scan, from files on disk to files on disk, against the known truth."""

from __future__ import annotations

import sys
from pathlib import Path

from braggshot import cli

SEED = 7


def main(folder: Path) -> int:
    """Simulate, write as the beamline does, reconstruct with the public command, compare with the truth."""
    raw = folder / "raw"
    print(f"1. a raw scan, written to {raw} as APS 34-ID-C writes it (SPEC, TIFF frames, dark, white field)")
    status = cli.main(["simulate", "--raw", "-o", str(raw), "--seed", str(SEED)])
    if status:
        return status
    spec = raw / "raw.spec"
    options = ["--set", "input.dark=dark.tif", "--set", "input.flat=whitefield.tif"]
    print("2. braggshot reconstruct", spec, *options, "-o", folder)
    status = cli.main(["reconstruct", str(spec), *options, "-o", str(folder)])
    if status:
        return status
    print(f"3. aligned complex correlation with the true crystal: {_correlation(next(folder.glob('*.cxi'))):.3f}")
    print("4. to see it form while it is measured, in the browser: make live")
    return 0


def _correlation(result: Path) -> float:
    """Truth and result, both in the laboratory frame on the same cubic grid."""
    import torch

    from braggshot.crystal_frame import to_lab
    from braggshot.crystals.scan import ScanSettings, simulate_scan
    from braggshot.io import results
    from braggshot.physics.fourier import pad
    from braggshot.physics.metrics import align

    settings = ScanSettings()
    _, truth = simulate_scan(SEED, settings=settings)
    found = to_lab(results.read(result), voxel_size=settings.truth_voxel)
    shape = [max(a, b) for a, b in zip(truth.rho.shape, found.rho.shape, strict=True)]
    return align(pad(torch.from_numpy(found.rho), shape), pad(torch.from_numpy(truth.rho), shape)).correlation


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output")))
