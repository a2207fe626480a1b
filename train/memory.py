"""What training will need of the device's memory, from the base's configuration and the lengths of the rows alone.

Sources of the formulas: NF4 and its double quantisation, Dettmers et al. 2023 (arXiv:2305.14314), section 3; AdamW's
two moments, Loshchilov and Hutter 2019 (arXiv:1711.05101); what a layer keeps for its backward pass, and what
checkpointing keeps instead, Korthikanti et al. 2022 (arXiv:2205.05198), section 4, here for attention that never holds
its scores (Dao et al. 2022, arXiv:2205.14135) and for frozen weights, whose inputs only the adapter still needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from train.guards import EVALUATED, TILE
from train.processes import is_sharded
from train.recipe import Lora, Recipe
from train.rehearsal import ANSWER_TOKENS
from train.rendering import encode

if TYPE_CHECKING:
    from train.preparation import Prepared

BLOCK, BLOCKS = 64, 256  # weights that share one constant, and blocks that share one constant of those
CONTEXT_BYTES = {"cuda": 0.8e9, "cpu": 0.7e9}  # CUDA's context and cuBLAS's workspace; the interpreter, its libraries
FRAGMENTS = 0.05  # of what is allocated anew at every step, lost between blocks of the allocator
LOSS_TILE = (4096, 32768)  # tokens and entries of the vocabulary: in tiles of at most so many TRL computes the loss


@dataclass(frozen=True)
class Shape:
    """Of a base and its adapter, what decides memory. Parameters and widths, all plain counts."""

    quantised: int  # parameters of linear layers that 4 bits hold
    kept: int  # parameters that stay as they are: embeddings, head, norms, …
    adapter: int
    layers: int
    hidden: int
    inner: int  # width between an MLP's matrices; of experts, all that one token meets
    attention: int  # queries, keys, values and output of one layer, as attention keeps them
    inputs: int  # widths of the inputs of all modules under an adapter, summed
    largest: int  # parameters of the largest quantised layer, which is spread out again to be multiplied
    vocabulary: int


@dataclass(frozen=True)
class Lengths:
    """Tokens of the longest example and answer, the longest answer that the KL stands on, the longest rehearsal."""

    longest: int
    answer: int
    kl_answer: int
    general: int


@dataclass(frozen=True)
class Estimate:
    """Bytes by what they hold, at the moment training needs most."""

    parts: dict[str, int]

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return sum(self.parts.values())


def unfit_targets(modules: Mapping[str, bool], targets: str | tuple[str, ...]) -> list[str]:
    """The entries of `lora.targets` that match none of these modules, or one that takes no adapter."""
    each: list[str | tuple[str, ...]] = [targets] if isinstance(targets, str) else [(one,) for one in targets]
    found = {one: {takes for name, takes in modules.items() if _is_target(name, one)} for one in each}
    return [one if isinstance(one, str) else one[0] for one, takes in found.items() if takes != {True}]


def build_empty(config: Any) -> Any:
    """The base without weights (accelerate's `init_empty_weights`: tensors of no storage)."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=True):
        return AutoModelForCausalLM.from_config(config)


def adaptable(config: Any, lora: Lora) -> dict[str, bool]:
    """Name of each module that may be meant -> whether it takes an adapter: layers that multiply, the head apart."""
    from torch.nn import Embedding, Linear
    from transformers.pytorch_utils import Conv1D

    model = build_empty(config)
    head, outside = model.get_output_embeddings(), outside_decoder(model, lora)
    return {
        name: isinstance(one, (Linear, Conv1D, Embedding)) and one is not head
        for name, one in model.named_modules()
        if not (outside and re.fullmatch(outside, name))
    }


def shape_of(config: Any, lora: Lora) -> Shape:
    """Count a base by building it without weights."""
    model = build_empty(config)
    linears = dict(_quantised(model))
    sizes = {id(one): one.numel() for one in model.parameters()}  # tied weights count once
    outside = outside_decoder(model, lora)
    targets = (name for name in linears if _is_target(name, lora.targets))
    adapted = [linears[name] for name in targets if not (outside and re.fullmatch(outside, name))]
    quantised = sum(one.weight.numel() for one in linears.values())
    text = config.get_text_config()
    heads = int(getattr(text, "num_attention_heads", 0) or 0)
    width = int(getattr(text, "head_dim", 0) or (text.hidden_size // heads if heads else 0))
    return Shape(
        quantised=quantised,
        kept=sum(sizes.values()) - quantised,
        adapter=lora.rank * sum(one.in_features + one.out_features for one in adapted),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        inner=_inner(text),
        attention=4 * heads * width,  # keys and values are repeated for all heads
        inputs=sum(one.in_features for one in adapted),
        largest=max((one.weight.numel() for one in linears.values()), default=0),
        vocabulary=int(text.vocab_size),
    )


def _quantised(model: Any) -> Iterator[tuple[str, Any]]:
    """The modules that bitsandbytes holds in 4 bits: linear, and not the head."""
    from torch.nn import Linear

    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if isinstance(module, Linear) and module is not head:
            yield name, module


def outside_decoder(model: Any, lora: Lora) -> str | None:
    """An expression for the layers that names do not mean: those beside the text decoder, if there are any.

    A vision tower and its projector get no gradient from text. It is the base model that is asked for its decoder, not
    the model with the head, since some heads call a layer of theirs the decoder.
    """
    if isinstance(lora.targets, str) and lora.targets != "all-linear":
        return None  # an expression says itself which it means
    names = {id(one): name for name, one in model.named_modules()}
    whole, decoder = names[id(model.base_model)], names[id(model.base_model.get_decoder())]
    if not decoder.startswith(f"{whole}."):
        return None
    below = decoder.removeprefix(f"{whole}.")
    expression = rf"{re.escape(whole)}\.(?!{re.escape(below)}\.).*"
    return expression if any(re.fullmatch(expression, name) for name, _ in _quantised(model)) else None


def _is_target(name: str, targets: str | tuple[str, ...]) -> bool:
    """Whether PEFT puts an adapter on the module of this name."""
    if targets == "all-linear":
        return True
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == one or name.endswith(f".{one}") for one in targets)


def _inner(text: Any) -> int:
    experts = int(getattr(text, "num_experts_per_tok", 0) or 0)
    width = getattr(text, "moe_intermediate_size", None) if experts else None
    width = width or getattr(text, "intermediate_size", None) or 4 * int(text.hidden_size)
    return int(width) * max(experts, 1)


def lengths_of(prepared: Prepared) -> Lengths:
    """The lengths of what would be trained on, with room for the answers that the base has yet to give."""
    recipe = prepared.recipe
    rows = [*prepared.kept(prepared.train), *prepared.kept(prepared.validation)]
    longest = max((len(one.ids) for one in rows), default=0)
    answer = max((len(one.ids) - one.prompt_tokens for one in rows), default=0)
    replayed = replayed_answer = 0
    if recipe.guards.rehearsal and prepared.prompts:
        prompts = [row.prompt_tokens for row in prepared.prompt_rows]
        own = recipe.guards.rehearsal.source == "self"
        given = encode(prepared.tokenizer, [str(one.answer or "") for one in prepared.prompts])
        answers = [ANSWER_TOKENS if own else len(one) + 1 for one in given]
        replayed_answer = max(answers)
        replayed = max(one + more for one, more in zip(prompts, answers, strict=True))
    kl = recipe.guards.kl_to_base
    on_kl = (replayed_answer if kl.on == "rehearsal" else max(answer, replayed_answer)) if kl else 0
    return Lengths(max(longest, replayed), max(answer, replayed_answer), on_kl, replayed)


def estimate(shape: Shape, recipe: Recipe, lengths: Lengths, device: str) -> Estimate:
    """The most that training holds at once, by part, in bytes. `device` is cpu or cuda."""
    four = recipe.quantization.bits == 4
    number, plain = _widths(recipe, device)
    tokens = recipe.training.micro_batch * lengths.longest
    spread = shape.largest * number if four else 0
    # the gradients of one layer's widest tensors, on the way back
    activations = activation_bytes(shape, recipe, tokens, device) + tokens * (2 * shape.inner + 2 * shape.hidden) * 4
    head = _head_bytes(shape, recipe, lengths, device)
    parts = {
        "base, 4 bits" if four else "base, linear layers": shape.quantised * (_nf4_bytes(recipe) if four else plain),
        "embeddings, head and norms": shape.kept * plain,
        "adapter, gradients, AdamW": shape.adapter * (4 + 4 + 8),  # all in float32
        "activations": activations,
        "loss, KL and evaluation": head,
        "one layer out of 4 bits": spread,
        "context and libraries": CONTEXT_BYTES[device],
        "fragments": (activations + head + spread) * FRAGMENTS,
    }
    return Estimate({name: round(value) for name, value in parts.items() if value})


def is_checkpointing(recipe: Recipe, device: str) -> bool:
    """Whether layers are computed again on the way back instead of kept."""
    wanted = recipe.training.gradient_checkpointing
    return device != "cpu" if wanted is None else wanted


def _widths(recipe: Recipe, device: str) -> tuple[int, int]:
    """Bytes of one number: in arithmetic, and in what is not quantised (see `model.load_base`)."""
    number = 4 if recipe.quantization.compute == "float32" else 2
    return number, number if device == "cuda" or recipe.quantization.bits is None else 4


def _nf4_bytes(recipe: Recipe) -> float:
    """Bytes per 4-bit weight: its constants take 32 bits per block; double: 8, and 32 per group of blocks."""
    return 0.5 + (1 / BLOCK + 4 / (BLOCK * BLOCKS) if recipe.quantization.double else 4 / BLOCK)


def activation_bytes(shape: Shape, recipe: Recipe, tokens: int, device: str) -> float:
    """What the forward pass of so many tokens keeps for the backward pass.

    Per layer: the input under each adapter and its dropout mask; the inputs of two norms in float32; what attention was
    given and gave; an MLP's gate, its activation and the other branch. Checkpointing keeps each layer's input, and
    all of one layer at a time.
    """
    number, plain = _widths(recipe, device)
    mask = (1 if device == "cuda" else 4) if recipe.lora.dropout else 0  # a CPU keeps the mask in float32
    layer = (
        shape.inputs / max(shape.layers, 1) * (number + mask)
        + 2 * shape.hidden * 4
        + (shape.attention + 3 * shape.inner) * number
    )
    layers = shape.layers * shape.hidden * plain + layer if is_checkpointing(recipe, device) else shape.layers * layer
    return float(tokens * (layers + shape.hidden * 4))  # and the last norm's input


def _head_bytes(shape: Shape, recipe: Recipe, lengths: Lengths, device: str) -> float:
    """At the head: the loss in tiles and the KL's logits of both models; or an evaluation's, where that takes more."""
    number, plain = _widths(recipe, device)
    micro = recipe.training.micro_batch
    answers = micro * lengths.answer
    scored = answers if device == "cuda" else micro * lengths.longest
    tile = min(scored, LOSS_TILE[0]) * min(shape.vocabulary, LOSS_TILE[1]) * (number + 4)
    # of both models logits and log-probabilities in float32, and on the way back the gradient of the tuned one's
    kl = micro * lengths.kl_answer * shape.vocabulary * (number + 7 * 4)
    evaluation = min(EVALUATED * answers, TILE) * shape.vocabulary * (plain + 7 * 4)
    if is_sharded():  # then an evaluation has the whole logits, of both models
        evaluation += 2 * EVALUATED * micro * lengths.longest * shape.vocabulary * number
    return float(max(tile + kl, evaluation))
