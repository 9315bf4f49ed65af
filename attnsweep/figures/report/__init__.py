"""One page that says what results say: self-contained, opened offline, or kept current while a sweep runs.

    python -m attnsweep report results -o report.html [--watch] [--where "epochs == 15"]

The page holds its data, plotly.js and its own script; it asks nothing of a network.
"""
