"""An adapter's files: as a run keeps it, unscaled, and as others load it, with the scale in its weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate.errors import TrainingError
from curate.files import read_json, write_json
from train.recipe import Base
from train.run import Run

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def base_name(base: Base) -> str:
    """What a base is called wherever it lies: its name on the hub, or that of its directory."""
    return Path(base.model).name if base.is_directory else base.model


def save_adapter(model: Any, base: Base, directory: Path) -> None:
    """Write the adapter as PEFT does, less what depends on this machine or process: paths, and the order of a set."""
    model.save_pretrained(str(directory), safe_serialization=True)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's empty card
    config = read_json(directory / CONFIG) | {"base_model_name_or_path": base_name(base)}
    if isinstance(config["target_modules"], list):
        config["target_modules"] = sorted(config["target_modules"])
    write_json(directory / CONFIG, config)


def save_gathered(states: Mapping[str, Any], directory: Path) -> None:
    """Write the adapter out of the states of a whole model that FSDP gathered.

    PEFT 0.21 looks for it by the modules' names, in which FSDP's wrappers stand, and writes a file with nothing in it.
    """
    from safetensors.torch import save_file

    kept = {name.replace(".default.", "."): one.contiguous() for name, one in states.items() if ".lora_" in name}
    save_file(kept, directory / WEIGHTS, metadata={"format": "pt"})


def load_adapter(model: Any, directory: Path) -> None:
    """Put a saved adapter into a model that has one. Raises `TrainingError` where the file does not hold all of it."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    saved, wanted = load_file(directory / WEIGHTS), get_peft_model_state_dict(model)
    if saved.keys() != wanted.keys():
        what = f"its {len(saved)} weights are not those of the adapter, which are {len(wanted)}"
        raise TrainingError(what, where=str(directory / WEIGHTS), fix="train again, without --resume")
    set_peft_model_state_dict(model, saved)


def write_scaled(run: Run, directory: Path) -> None:
    """A run's adapter, its B matrices multiplied by the run's scale: whoever loads it needs to know of no scale."""
    from safetensors.torch import load_file, save_file

    weights = load_file(run.adapter / WEIGHTS)
    second = ("lora_B", "lora_embedding_B")  # of a linear layer and of an embedding
    scaled = {name: one * run.scale if any(b in name for b in second) else one for name, one in weights.items()}
    save_file(scaled, directory / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(run.adapter / CONFIG, directory / CONFIG)
