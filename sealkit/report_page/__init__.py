"""A run's report as one self-contained HTML page: `collect` reads what it shows from the controller, `render` draws it.

The page has no script and loads nothing: charts are SVG, drawn here. Every text of a run is escaped (`page`)."""
