"""Stage three: a run and a release become a report with a verdict."""
