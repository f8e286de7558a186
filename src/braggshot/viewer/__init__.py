"""The page on which anybody in the hutch looks at the crystal, while it is measured or afterwards.

::

    Feed (a live session, or a `shelf` of files) --> watch (what changed; each picture made ready once)
        --> model (surface, slices), measured (diffraction, curves) --> drawings (figures as dictionaries) --> app (Dash)

``layout`` is the page without its contents, ``guard`` decides who may look. Dash is imported in ``layout`` and ``app`` only, and
nothing is drawn on this side: no display, no OpenGL.
"""
