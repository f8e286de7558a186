"""Show the crystal on a web page, while it is measured or afterwards.

::

    Feed (a live session, or result files) --> shared (what changed) --> report.solid, measured (arrays)
        --> report.interactive, drawings (figures as dictionaries) --> parts (all of one picture) --> app (Dash)

access         check who may see the page
choices        read what a user chose; choose colours, unit and view by it
model          choose the colours that all scans of a series share; count amplitudes
measured       make diffraction beside its fit, rocking curve, misfit over time, and curves along a series
result_files   offer results on disk as a feed, a source of snapshots
folder         list the scans of a folder; write what a user chose for one of them as a command
bench          phase scans of a folder by the order of the page
drawings       make figures as plain dictionaries in the format of plotly.js
shared         share one feed among all open pages; each reconstruction is prepared once
pages          say how a page asks what is new; know which pages are open, and what each has shown
scripts        hold the other scripts that the browser runs by itself
contents       lay out what fills the parts of the page
downloads      send what is shown as a file
layout         lay out the page, without its contents
parts          compute the parts of the page that show one picture
comparison     compute the parts that show a second result beside the first
workbench      lay out and answer the part from which scans are phased
callbacks      answer the requests of the browser
server         serve among slow clients
app            serve the page; Dash is imported from `contents` on

The browser draws; this program needs no display and no OpenGL.
"""
