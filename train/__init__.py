"""Stage two: a release and a recipe become a run."""
