"""Bases of any shape with random weights, for the tests that need another than the tiny one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_spec = importlib.util.spec_from_file_location("tests_conftest", Path(__file__).with_name("conftest.py"))
assert _spec is not None
assert _spec.loader is not None
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)
make_tokenizer = _shared.make_tokenizer


def save(config: Any, directory: Path, dtype: str = "float32") -> Path:
    """A base of this configuration with random weights and the byte tokenizer, as transformers saves one."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config.eos_token_id, config.pad_token_id, config.bos_token_id = 3, 0, None
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(directory)
    _shared.make_tokenizer().save_pretrained(directory)
    return directory
