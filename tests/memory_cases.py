"""Recipes, bases and lengths whose memory is estimated."""

from __future__ import annotations

from typing import Any

from train.memory import Lengths, Shape, shape_of
from train.recipe import Recipe

LENGTHS = Lengths(longest=1000, answer=200, kl_answer=150, general=300)


def recipe(quantization: dict[str, Any] | None = None, lora: dict[str, Any] | None = None, **training: Any) -> Recipe:
    data = {"base": {"model": "a/b"}, "quantization": quantization or {}, "lora": lora or {}, "training": training}
    return Recipe.model_validate(data)


def small(family: str = "Llama", **changes: Any) -> Any:
    import transformers

    sizes = {"vocab_size": 1000, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    return getattr(transformers, f"{family}Config")(**{**sizes, **heads, **changes})


def shape() -> Shape:
    """Qwen3 4B, whose published size is 4.02 billion parameters."""
    sizes = {"vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}
    return shape_of(small("Qwen3", **sizes, **heads), recipe().lora)
