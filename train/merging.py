"""The adapter merged into its base, never the quantised one, and the proof that the result answers as the two apart."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from curate.errors import TrainingError
from train.recipe import Base, Quantization
from train.rendering import Rendered
from train.run import Run

MOST_TOKENS = 512  # answer tokens on which logits are compared; each takes a row of the vocabulary
LARGEST_SHARE = 0.05  # of what the adapter changes in the logits may be off after merging …
ROUNDING = 2**-8  # … or this share of the logits, the last place of bfloat16, where the adapter changes hardly anything


def write_merged(run: Run, rows: Sequence[Rendered], directory: Path) -> dict[str, Any]:
    """Merge into `directory` and compare what was written with base and adapter apart.

    Returns `check_merge`'s numbers; raises `TrainingError` where the merged model is another one than the two apart.
    """
    import torch
    from peft import PeftModel

    from train.adapter import write_scaled
    from train.model import load_base

    dtype = sixteen_bits(run.recipe.base)
    model, _ = load_base(run.recipe.base, Quantization(bits=None, compute=dtype))
    with TemporaryDirectory() as adapter:
        write_scaled(run, Path(adapter))
        tuned = PeftModel.from_pretrained(model, adapter, is_trainable=False)  # PEFT holds adapters in float32
    apart = answer_logits(tuned.eval(), rows)
    with tuned.disable_adapter():
        base = answer_logits(tuned, rows)
    merged = tuned.merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(directory), safe_serialization=True)
    del model, tuned, merged
    gc.collect()
    torch.cuda.empty_cache()
    written, _ = load_base(Base(model=str(directory.resolve())), Quantization(bits=None, compute=dtype))
    return check_merge(base, apart, answer_logits(written, rows), dtype)


def sixteen_bits(base: Base) -> Literal["bfloat16", "float16"]:
    """The base's own 16-bit type; bfloat16 where it has none."""
    from train.model import load_config

    return "float16" if str(load_config(base).dtype).removeprefix("torch.") == "float16" else "bfloat16"


def answer_logits(model: Any, rows: Sequence[Rendered]) -> Any:
    """Logits where answers are predicted, teacher-forced: [tokens, vocabulary], float32, on the CPU."""
    import torch

    found, left = [], MOST_TOKENS
    with torch.no_grad():
        for row in rows:
            if left <= 0:
                break
            ids = torch.tensor([row.ids], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, row.prompt_tokens - 1 : -1][:left]
            found.append(logits.float().cpu())
            left -= len(logits)
    return torch.cat(found)


def check_merge(base: Any, apart: Any, merged: Any, dtype: str) -> dict[str, Any]:
    """Compare logits [tokens, vocabulary]: of the base, of base and adapter apart, of both merged.

    What is held to account is the length of the difference, as a share of what the adapter itself changes; logits are
    taken less their mean per token, which softmax does not see. KL alone would be blind where the model is very sure.
    """
    from train.guards import kl_sum

    n = len(apart)
    off, moved, size = _length(apart - merged), _length(apart - base), _length(apart)
    if not off <= max(LARGEST_SHARE * moved, ROUNDING * size):
        raise TrainingError(
            f"the merged model is not base and adapter: its logits are off by {off / moved if moved else 0:.1%} of "
            "what the adapter changes; nothing was written",
            fix="serve the adapter beside its base: tutelage train export RUN --to adapter"
            + ("" if math.isfinite(off) else "; numbers overflowed, which float16 does not hold"),
        )
    return {
        "share_off": off / moved if moved else 0.0,
        "largest_difference": float((apart - merged).abs().max()),
        "agreement": float((apart.argmax(-1) == merged.argmax(-1)).float().mean()),
        "merging_kl": float(kl_sum(apart, merged)) / n,
        "adapter_kl": float(kl_sum(apart, base)) / n,
        "tokens": n,
        "dtype": dtype,
    }


def _length(logits: Any) -> float:
    return float((logits - logits.mean(-1, keepdim=True)).norm())
