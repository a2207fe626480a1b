"""What several tests share: a tiny Llama with random weights and a ChatML tokenizer, made on the spot; a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("tutelage", deadline=None)  # machines are shared: a slow example is no failing one
settings.load_profile("tutelage")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the hub

CHATML = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def make_tokenizer(template: str = CHATML, pad: str = "<|pad|>") -> object:
    """A byte-level tokenizer without merges: every byte is a token, and four special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(special + alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=pad, eos_token="<|im_end|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = template
    return tokenizer


def make_base(directory: Path, template: str = CHATML, vocab: int = 320) -> Path:
    """A base of about 60,000 random weights with its tokenizer, as transformers saves one."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.1,  # enough to learn from in a few steps
        pad_token_id=0,
        eos_token_id=3,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    make_tokenizer(template).save_pretrained(directory)  # type: ignore[attr-defined]
    return directory


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny base."""
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; for a module and no longer, since no other event loop can run beside Playwright's."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium (CI does)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found)
        yield running
        running.close()


@pytest.fixture(scope="session")
def prepared_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A workspace with a release and a run, see `evaluated_run`; tests that change it take `run_root`."""
    from evaluated_run import prepare_run

    return prepare_run(tmp_path_factory.mktemp("eval") / "w", tiny_base)


@pytest.fixture
def run_root(prepared_run: Path, tmp_path: Path) -> Path:
    """A copy of `prepared_run` of one's own."""
    return Path(shutil.copytree(prepared_run, tmp_path / "w"))
