"""An `evaluate` module; see the file of that name."""
