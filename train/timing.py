"""How long the steps of training will take here: a step of the base's own layers, few of them, is timed and scaled up.

The layers have random weights, held as the recipe quantises them, under a fresh adapter; so nothing is loaded, and
what a step costs on this very device (dequantisation, attention, checkpointing, overhead) is in the figure. One layer
and two are timed: their difference is a layer's time. Rehearsal's answers, evaluations and the sweep of the adapter's
scale come on top.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.fitting import Fit
from train.memory import is_checkpointing
from train.order import total_steps
from train.recipe import Recipe
from train.rehearsal import rehearsal_count

if TYPE_CHECKING:
    from train.preparation import Prepared

WORK = {"cpu": 2e11, "cuda": 2e13}  # floating-point operations that one timed step may take, a second or two
LAYERS = (1, 2)
VOCABULARY = 8192  # of the timed model: the head sees few tokens, and its size would be most of what is made
FLOPS = 6  # per parameter and token, forward and backward with checkpointing (arXiv:2001.08361, section 2.1)


@dataclass(frozen=True)
class Duration:
    """Seconds of all steps, and what they follow from."""

    seconds: float
    steps: int
    seconds_per_step: float
    timed_tokens: int

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "seconds": round(self.seconds, 1),
            "steps": self.steps,
            "seconds_per_step": round(self.seconds_per_step, 4),
            "how": f"{self.timed_tokens:,} tokens through {LAYERS[0]} and {LAYERS[1]} layers with random weights, "
            "timed now on this device, scaled to all layers and tokens",
            "without": "the base's answers for rehearsal, evaluations, the adapter-scale sweep",
        }


def measure_duration(fit: Fit, prepared: Prepared) -> Duration:
    """Time the layers on the device of `fit`, which must be here, for the examples that would be trained on."""
    from train.model import load_config

    recipe = fit.recipe
    rows = prepared.kept(prepared.train)
    rehearsal = recipe.guards.rehearsal
    examples = len(rows) + (rehearsal_count(len(rows), rehearsal.share) if rehearsal else 0)
    steps = total_steps(examples, recipe.training.epochs, recipe.training.batch)
    mean = max(1, sum(len(one.ids) for one in rows) // max(len(rows), 1))
    config = load_config(recipe.base)
    share = (fit.shape.quantised / fit.shape.layers * LAYERS[1] + VOCABULARY * fit.shape.hidden) * FLOPS
    micro = recipe.training.micro_batch
    length = max(8, min(mean, int(WORK[fit.device] / share) // micro))
    one, two = (_seconds(config, recipe, layers, micro, length, fit.device) for layers in LAYERS)
    scaled = (one + max(0.0, two - one) * (fit.shape.layers - 1)) * mean / length
    per_step = scaled * recipe.training.batch / micro * (1 + _kl_share(recipe))
    return Duration(per_step * steps, steps, per_step, micro * length)


def _kl_share(recipe: Recipe) -> float:
    """What the KL's extra forward pass of the base adds: a third of a step, of the examples it stands on."""
    kl, rehearsal = recipe.guards.kl_to_base, recipe.guards.rehearsal
    if not kl:
        return 0.0
    return (rehearsal.share if kl.on == "rehearsal" and rehearsal else 1.0) / 3


def _seconds(config: Any, recipe: Recipe, layers: int, rows: int, length: int, device: str) -> float:
    """The fastest of three steps after a first, of rows x length random tokens through so many layers."""
    import torch

    from train.guards import causal_model, head_logits

    model = _few_layers(config, recipe, layers, device)
    compute = getattr(torch, recipe.quantization.compute)
    known = causal_model(model).config.get_text_config().vocab_size
    ids = torch.randint(0, known, (rows, length), device=device)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.training.learning_rate)
    found = []
    for _ in range(4):
        started = time.perf_counter()
        with torch.autocast(device, dtype=compute, enabled=compute != torch.float32):
            causal = causal_model(model)
            hidden = causal.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)[0]
            loss = head_logits(causal, hidden[:, -max(1, length // 4) :]).logsumexp(-1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe.training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found[1:])


def _few_layers(config: Any, recipe: Recipe, layers: int, device: str) -> Any:
    """The base's own architecture with fewer layers and a smaller vocabulary, quantised, under an adapter."""
    import torch
    from transformers import AutoModelForCausalLM

    from train.model import attach_lora, keep_trainable

    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers, text.vocab_size = layers, min(text.vocab_size, VOCABULARY)
    text.pad_token_id = None
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    four = recipe.quantization.bits == 4
    compute = getattr(torch, recipe.quantization.compute)
    plain = torch.float32 if device == "cpu" and four else compute
    model = AutoModelForCausalLM.from_config(small, dtype=plain).requires_grad_(False)
    if four:
        _quantise(model, recipe, compute)
    keep_trainable(model.to(device))
    tuned = attach_lora(model, recipe.lora, recipe.training.seed).train()
    if is_checkpointing(recipe, device):
        tuned.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return tuned


def _quantise(model: Any, recipe: Recipe, compute: Any) -> None:
    """Put bitsandbytes' 4-bit layers in the place of all linear ones but the head, as loading a base does."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit
    from torch.nn import Linear

    head, kind = model.get_output_embeddings(), recipe.quantization
    for name, old in list(model.named_modules()):
        if not isinstance(old, Linear) or old is head:
            continue
        new = Linear4bit(old.in_features, old.out_features, old.bias is not None, compute, kind.double, kind.kind)
        new.weight = Params4bit(
            old.weight.data, requires_grad=False, compress_statistics=kind.double, quant_type=kind.kind, module=new
        )
        new.bias = old.bias
        model.set_submodule(name, new)
