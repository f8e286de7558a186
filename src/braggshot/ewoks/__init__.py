"""Run braggshot as a task of Ewoks, the workflows of the ESRF: ``pip install 'braggshot[ewoks]'``.

tasks   the task `Reconstruct`: a raw scan in, result files and a verdict out
"""
