"""Argilla on this machine: one process, no Docker, an environment of its own, where `embedded` runs."""
