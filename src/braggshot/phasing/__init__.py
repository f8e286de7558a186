"""Phase a diffraction volume: find the crystal, choose among the solutions, say how far to trust the chosen one.

Each module imports only modules above it in this list.

verdict             judge a reconstruction: good, doubtful or failed, with reasons
calibration         scale the spread of solutions to errors that cover 68 % of cases
memory              refuse a phasing that does not fit into memory
pattern             hold the pattern in which a crystal is searched, and what its counts tell the search
selection           score starts on held-out voxels, choose one, align the others to it, and judge it
rounds              hold the settings of a tournament, round by round
surface             fit supports to the surface of the crystal
tournament          narrow many random starts down on a coarse grid
config              hold the settings of phasing
problem             hold the counts of one volume, and what is known so far while it is phased
partial_coherence   phase with the point spread of a partially coherent beam
even_fields         make guesses of a crystal whose pattern is the same at q and -q
hypotheses          ask the network for hypotheses (guesses of the crystal), and refine them
outcome             judge the starts of a strategy, and call doubtful a crystal that only the network has found
auto                ask the network, and search among random starts until the verdict is good
sparse              phase a scan of few frames from a crystal that is nearly the same
strategies          phase by one of the methods: auto, oneshot, refine, iterative
self_flat           estimate the flat field of a detector from the scan itself
rocking_angles      find how far frames are off their rocking angles, and phase their counts at even ones
duration            estimate how long phasing takes on this machine
uncertainty         phase again with redrawn or halved counts, for the error from photon noise and the resolution
"""

from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase

__all__ = ["PhasingConfig", "phase"]
