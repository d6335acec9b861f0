"""Reports: what a run left in its folder, as one HTML file that needs nothing else.

read       a folder as plain facts; damage becomes a sentence
model      what the experiment knows: modules, FLOPs
examine    what a checkpoint says of single examples; classes: that as tables
thin       long curves by few points that keep every extreme
charts     facts as figures, plain dicts; page: HTML, with page.css and page.js
one        the page of a run; several: of runs beside each other; command: jaxmodels report
"""
