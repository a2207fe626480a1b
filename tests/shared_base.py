"""Bases with random weights and a byte tokenizer, made on the spot: a tiny Llama, and others of any shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHATML = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def make_tokenizer(template: str = CHATML, pad: str = "<|pad|>") -> Any:
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
    make_tokenizer(template).save_pretrained(directory)
    return directory


def save(config: Any, directory: Path, dtype: str = "float32") -> Path:
    """A base of this configuration with random weights and the byte tokenizer, as transformers saves one."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config.eos_token_id, config.pad_token_id, config.bos_token_id = 3, 0, None
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    return directory


def gemma3(**text: Any) -> Any:
    """The configuration of a small Gemma 3 of the sizes that see: a text decoder beside a vision tower."""
    from transformers import Gemma3Config

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 320, "pad_token_id": 0}
    vision = {**sizes, "image_size": 28, "patch_size": 14, "vision_use_head": False}
    return Gemma3Config(text_config={**sizes, **heads, **text}, vision_config=vision, mm_tokens_per_image=4)
