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
NOISE = 0.05  # … or this share of the logits: 16 bits alone move those of four layers by 1.5 %, deeper ones by more
EXACT = 1e-6  # of a matrix's length may be off: both are the same sums in the same 16 bits


def write_merged(run: Run, rows: Sequence[Rendered], directory: Path) -> dict[str, Any]:
    """Merge into `directory` and compare what was written with base and adapter apart.

    The weights are held against the sum of base and adapter, which shows a wrong scale or a forgotten layer to the
    digit; the logits then show that the model, as a server will load it, is that one. Returns `check_merge`'s numbers;
    raises `TrainingError` where the merged model is another one than the two apart.
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
    sums = weight_sums(tuned)
    merged = tuned.merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(directory), safe_serialization=True)
    del model, tuned, merged
    gc.collect()
    torch.cuda.empty_cache()
    written, _ = load_base(Base(model=str(directory.resolve())), Quantization(bits=None, compute=dtype))
    check_weights(sums, written)
    return check_merge(base, apart, answer_logits(written, rows), dtype)


def weight_sums(tuned: Any) -> dict[str, tuple[Any, float]]:
    """Name of each adapted matrix -> (base + adapter) times a vector of signs, and the length of the sum.

    A random product stands for the matrix (Freivalds, 1977), so that the base need not be held a second time.
    """
    from peft.tuners.lora.layer import LoraLayer

    found = {}
    adapted: list[tuple[str, Any]] = [one for one in tuned.named_modules() if isinstance(one[1], LoraLayer)]
    for name, module in adapted:
        if module.active_adapters:
            weight = module.get_base_layer().weight.detach().clone()
            for adapter in module.active_adapters:
                weight += module.get_delta_weight(adapter).detach().to(weight.dtype)  # as PEFT adds them
            weight = weight.float()
            found[name.removeprefix("base_model.model.")] = (weight @ _signs(weight), float(weight.norm()))
    return found


def check_weights(sums: dict[str, tuple[Any, float]], merged: Any) -> None:
    """Raise `TrainingError` where a merged matrix is not what `weight_sums` added."""
    layers = dict(merged.named_modules())
    for name, (wanted, length) in sums.items():
        if name not in layers:
            raise TrainingError(f"the merged model is not base and adapter: it has no layer {name}")
        weight = layers[name].weight.detach().float()
        off = float((weight @ _signs(weight) - wanted.to(weight.device)).norm())
        if not off <= EXACT * length:
            raise TrainingError(
                f"the merged model is not base and adapter: {name} is off by {off / length if length else 0:.2%};"
                " nothing was written",
                fix="serve the adapter beside its base: tutelage train export RUN --to adapter",
            )


def _signs(weight: Any) -> Any:
    """A vector of ±1, the same for every matrix of that width."""
    import torch

    dice = torch.Generator().manual_seed(weight.shape[1])
    return (torch.randint(0, 2, (weight.shape[1],), generator=dice) * 2.0 - 1).to(weight.device)


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
    if not off <= max(LARGEST_SHARE * moved, NOISE * size):
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
