"""Phase a diffraction volume: find the crystal, choose among answers, say how far to trust it.

Read from the bottom up; a module imports only those above it in this list.

verdict             judge a reconstruction: good, doubtful or failed, with reasons
calibration         scale spreads to errors that cover 68 %
memory              refuse what does not fit into memory
selection           score starts on held-out voxels, choose one, align and judge
tournament          narrow many random starts down on a coarse grid
config              hold the settings
problem             hold one volume on its way through a strategy
partial_coherence   search with the point spread that the counts ask for
hypotheses          ask the network for hypotheses, and refine them
outcome             judge what a strategy has found, and doubt what nothing confirms
strategies          phase by one of the methods: auto, oneshot, refine, iterative
uncertainty         redraw or halve the counts and phase again
"""

from braggshot.phasing.config import PhasingConfig
from braggshot.phasing.strategies import phase

__all__ = ["PhasingConfig", "phase"]
