"""Reports: what a run left in its folder, as one HTML file that needs nothing else.

read_run, read_sweep       a folder as plain facts; damage becomes a note
model                      what the experiment knows: modules, FLOPs
predictions, classifier, transcripts    predictions of a checkpoint for single examples, and their metrics
downsample                 long curves by few points that keep every extreme
charts, sweep_charts       facts as figures, plain dicts for plotly
page                       HTML, with page.css and page.js
run_page, compare_page, sweep_page    the pages of a run, of runs beside each other, and of a sweep
"""
