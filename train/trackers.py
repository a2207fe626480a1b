"""Trackers (`training.report_to`): known and installed before anything is loaded; where TensorBoard writes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from curate.errors import TrainingError

MODULES = {"azure_ml": ("azureml",), "flyte": ("flytekit",), "tensorboard": ("tensorboard", "tensorboardX")}  # any does
PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "flyte": "flytekit"}


def check_trackers(names: Sequence[str]) -> None:
    """Raise `TrainingError` where transformers knows no such tracker, or its package is not installed."""
    if not names:
        return
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise TrainingError(f"training.report_to: there is no tracker {name!r}", fix=f"known are: {known}")
        if not any(find_spec(module) for module in MODULES.get(name, (name,))):
            raise TrainingError(
                f"training.report_to: {name} is not installed here",
                fix=f"pip install {PACKAGES.get(name, name)}, or take {name} out; log.jsonl is written either way",
            )


def write_beside_runs(workspace: Path, run: str) -> None:
    """Let TensorBoard write to `tensorboard/RUN` in the workspace: a run's own files are hashed and never change."""
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(workspace / "tensorboard" / run))
