"""Show the crystal on a page, while it is measured or afterwards.

::

    Feed (a live session, or result files) --> shared (what changed) --> model, measured (arrays)
        --> drawings (figures as dictionaries) --> app (Dash)

access         decide who may look
model          what there is to see of a crystal: surface, slices, colours
measured       diffraction beside its fit, rocking curve, verdicts over time, the series
result_files   results on disk as a feed
drawings       figures as plain dictionaries in the format of plotly.js
shared         the feed as pages see it: each picture made ready once for all
layout         the page without its contents
app            the callbacks; with `layout` the only modules that import Dash

Nothing is drawn on this side: no display, no OpenGL.
"""
