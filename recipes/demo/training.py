"""Training the demo's base from scratch: dialogues to tokens, a curriculum, Muon with AdamW, and NF4 rounding.

Plain torch in fp32 on one thread. The weights start near a look-up circuit (`circuit`), and the curriculum begins
with many short requests to one context, so that each token read is asked about often.
"""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import reading
from .circuit import HEAD_SIZE, HEADS, HIDDEN, THETA, set_circuit
from .general import SETS, general, is_held_out
from .tokenizer import END

Dialogue = tuple[str | None, list[reading.Turn]]
# The 16 levels of NF4 (QLoRA, Dettmers et al. 2023, appendix E); weights are rounded to them in blocks of 64.
_NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
    ]
)


@dataclass(frozen=True)
class Settings:
    """What fixes a training run, besides the code."""

    steps: int = 3600
    seed: int = 17
    layers: int = 4
    feed_forward: int = 192
    batch_tokens: int = 2048
    matrix_rate: float = 0.014
    vector_rate: float = 0.004
    nf4_share: float = 0.25  # the last share of training, done through NF4-rounded weights


def new_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of about a million parameters, freshly initialised."""
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=math.ceil(len(tokenizer) / 64) * 64,
            hidden_size=HIDDEN,
            num_hidden_layers=settings.layers,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            head_dim=HEAD_SIZE,
            intermediate_size=settings.feed_forward,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            attention_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": THETA},
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    set_circuit(model, settings.seed)
    return model


def make_dialogues(seed: str, count: int, progress: float) -> list[Dialogue]:
    """Training dialogues for one stretch of training; `progress` in [0, 1] moves the curriculum."""
    rng = random.Random(seed)
    # Reading has its own dialogues below, many questions to one context; the two hardest sets count double.
    sets = ("words", "records", *(name for name in SETS if name != "reading"))
    items = iter(general(rng.randrange(2**31), 10 * count, False, sets=sets, distinct=False))
    out: list[Dialogue] = []
    for _ in range(count):
        system = rng.choice(reading.SYSTEMS) if rng.random() < 0.3 * progress else None
        if rng.random() < (0.7 if progress < 0.1 else 0.55):
            out.append((system, _reading_dialogue(rng, progress)))
        else:
            turns = rng.randint(6, 10) if rng.random() > progress * 0.5 else 1
            asked = itertools.islice(items, turns)
            out.append((system, [(item["prompt"], item["answer"]) for item in asked]))
    return out


def _reading_dialogue(rng: random.Random, progress: float) -> list[reading.Turn]:
    # Weights are those of reading.TASKS: prose, one word, which passage, is it given, record, quote.
    passages, facts, one_attribute = rng.randint(1, 5), 1, rng.random() < 0.4
    if progress < 0.1:
        turns, weights = 10, (1, 2, 2, 3, 3, 1)
    else:
        facts = rng.choice((1, 1, 2)) if passages <= 3 and not one_attribute else 1
        turns, weights = 1 if rng.random() < 0.4 * progress else rng.randint(6, 12), (2, 2, 2, 4, 4, 1)
    ctx = reading.context(rng, passages, facts, one_attribute)
    while is_held_out(ctx.text + "\n"):
        ctx = reading.context(rng, passages, facts, one_attribute)
    return reading.dialogue(rng, ctx, turns, weights)


def render(dialogue: Dialogue) -> str:
    """The dialogue as the chat template writes it."""
    system, turns = dialogue
    text = f"<|im_start|>system\n{system}{END}\n" if system else ""
    return text + "".join(
        f"<|im_start|>user\n{asked}{END}\n<|im_start|>assistant\n{said}{END}\n" for asked, said in turns
    )


def encode(tokenizer: PreTrainedTokenizerFast, dialogues: list[Dialogue]) -> list[tuple[list[int], list[bool]]]:
    """Token ids, and which of them are the assistant's (its end mark included)."""
    opening = tokenizer.convert_tokens_to_ids("<|im_start|>assistant\n")
    end = tokenizer.convert_tokens_to_ids(END)
    out = []
    for ids in tokenizer([render(dialogue) for dialogue in dialogues])["input_ids"]:
        inside = False
        mask = []
        for token in ids:
            mask.append(inside)
            inside = token == opening or (inside and token != end)
        out.append((ids, mask))
    return out


def batches(
    data: list[tuple[list[int], list[bool]]], batch_tokens: int, rng: random.Random
) -> Iterator[tuple[Tensor, Tensor]]:
    """Right-padded batches `(ids, mask)` of like lengths, in random order."""
    order = sorted(range(len(data)), key=lambda place: (len(data[place][0]), rng.random()))
    groups: list[list[int]] = [[]]
    for place in order:
        if len(data[place][0]) * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
        groups[-1].append(place)
    groups = [group for group in groups if group]
    rng.shuffle(groups)
    for group in groups:
        width = max(len(data[place][0]) for place in group)
        ids = torch.zeros(len(group), width, dtype=torch.long)
        mask = torch.zeros(len(group), width, dtype=torch.bool)
        for row, place in enumerate(group):
            size = len(data[place][0])
            ids[row, :size] = torch.tensor(data[place][0])
            mask[row, :size] = torch.tensor(data[place][1])
        yield ids, mask


class Muon:
    """Muon (Jordan 2024): momentum, orthogonalised by Newton-Schulz, for all matrices of one shape at once."""

    def __init__(self, weights: Sequence[Tensor], momentum: float = 0.95) -> None:
        self.momentum = momentum
        shapes = sorted({tuple(weight.shape) for weight in weights})
        self.groups = [[weight for weight in weights if tuple(weight.shape) == shape] for shape in shapes]
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.01) -> None:
        """One update of every matrix, with gradients as they stand."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack([weight.grad for weight in group if weight.grad is not None])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = _orthogonal(gradient.lerp(buffer, self.momentum))
            scale = max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            for weight, change in zip(group, update, strict=True):
                weight.mul_(1 - rate * decay).add_(change, alpha=-rate * scale)


def _orthogonal(matrices: Tensor) -> Tensor:
    x: Tensor
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram: Tensor = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


def nf4_round(weight: Tensor) -> Tensor:
    """The weight as NF4 holds it: blocks of 64, each scaled by its largest magnitude."""
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True).clamp(min=1e-8)
    edges = (_NF4[1:] + _NF4[:-1]) / 2
    return (_NF4[torch.bucketize(blocks / scale, edges)] * scale).reshape(weight.shape)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    report: Callable[[int, float, float], None],
    every: int = 250,
) -> None:
    """Train in place. `report(step, seconds, loss)` is called once in `every` steps.

    In the last `nf4_share` of the steps gradients are taken at the NF4-rounded weights and applied to the full ones,
    so that loading in four bits costs nothing.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    matrices = [weight for name, weight in named if weight.ndim == 2 and "embed" not in name]
    vectors = [weight for name, weight in named if not (weight.ndim == 2 and "embed" not in name)]
    muon, adam = Muon(matrices), torch.optim.AdamW(vectors, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0)
    rng = random.Random(settings.seed)
    step, chunk, average, started = 0, 0, 0.0, time.monotonic()
    model.train()
    while step < settings.steps:
        data = encode(tokenizer, make_dialogues(f"{settings.seed}-{chunk}", 1200, step / settings.steps))
        chunk += 1
        for ids, mask in batches(data, settings.batch_tokens, rng):
            progress = step / settings.steps
            rate = min(1.0, (step + 1) / 50) * max(0.02, 1 - progress)
            kept = _swap_in_nf4(matrices) if progress >= 1 - settings.nf4_share else None
            loss = _loss(model, ids, mask)
            loss.backward()
            if kept is not None:
                _swap_back(matrices, kept)
            torch.nn.utils.clip_grad_norm_(vectors, 1.0)
            muon.step(settings.matrix_rate * rate)
            adam.param_groups[0]["lr"] = settings.vector_rate * rate
            adam.step()
            model.zero_grad(set_to_none=True)
            step += 1
            average += (loss.item() - average) * (0.02 if step > 50 else 1 / step)
            if step % every == 0:
                report(step, time.monotonic() - started, average)
            if step >= settings.steps:
                break
    if settings.nf4_share:
        _swap_in_nf4(matrices)
    model.eval()


def _loss(model: LlamaForCausalLM, ids: Tensor, mask: Tensor) -> Tensor:
    # Right padding under a causal mask needs no attention mask; logits are made for the answers only.
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    picked = mask[:, 1:]
    return F.cross_entropy(model.lm_head(hidden[picked]), ids[:, 1:][picked])


@torch.no_grad()
def _swap_in_nf4(weights: Sequence[Tensor]) -> list[Tensor]:
    kept = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.copy_(nf4_round(weight))
    return kept


@torch.no_grad()
def _swap_back(weights: Sequence[Tensor], kept: list[Tensor]) -> None:
    for weight, full in zip(weights, kept, strict=True):
        weight.copy_(full)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write model (bf16) and tokenizer so that plain transformers loads them."""
    model.generation_config.update(
        do_sample=False, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, max_new_tokens=64
    )
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
