"""Where the base's weights start: near a look-up, which a million parameters on one thread would find too late.

From a random start the model answers by the kind of value ("the only colour among the passages") and matches names
only after tens of millions of tokens. So the first two layers begin as an induction circuit in the manner of Olsson
et al. (2022), with rotary offsets (Su et al. 2021) from query and key biases, and training does the rest:

- layer 0: head `k` looks `k + 1` tokens back and writes a short code of what it saw into a subspace of its own;
- layer 1: "the value two after this name and four after this attribute" is found by matching those codes.
"""

import math

import torch
from torch import Tensor

HIDDEN, HEADS, HEAD_SIZE = 128, 8, 32
OFFSETS = 7
CODE = 16  # dimensions of the code of a token seen by layer 0
THETA = 1_000_000.0  # slow rotary dimensions carry content over a whole prompt, fast ones carry offsets
EMBEDDING_STD = 0.5
_SHARPNESS = 6.3  # of the offset heads: about 0.95 of the attention falls on the one token
_MATCH = 4.0  # strength of the match of two codes
_GAIN = 0.7


@torch.no_grad()
def set_circuit(model: torch.nn.Module, seed: int) -> None:
    """Overwrite the freshly made `model` (its attention has biases) with the circuit."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = dict(model.named_parameters())
    weights["model.embed_tokens.weight"].normal_(0, EMBEDDING_STD, generator=generator)
    weights["model.norm.weight"].fill_(0.1 / EMBEDDING_STD)  # tied embeddings this large need small logits
    for name, weight in weights.items():
        # The residual stream must hold the token itself, not the noise of layers that know nothing yet.
        if "o_proj.weight" in name or "down_proj.weight" in name:
            weight.mul_(0.2)
    read = _orthogonal(HIDDEN, generator)[:CODE]
    basis = _orthogonal(HIDDEN, generator)
    seen = {offset: basis[(offset - 1) * CODE : offset * CODE] for offset in range(1, OFFSETS + 1)}
    first, second = (
        {name.rpartition("self_attn.")[2]: weight for name, weight in weights.items() if f"layers.{layer}.self" in name}
        for layer in (0, 1)
    )
    _look_back(first, read, seen)
    _match(second, read, seen, generator)


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    q: Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    return q


def _frequencies() -> Tensor:
    half = HEAD_SIZE // 2
    frequencies: Tensor = torch.exp(-math.log(THETA) * torch.arange(half) / half)
    return frequencies


def _look_back(w: dict[str, Tensor], read: Tensor, seen: dict[int, Tensor]) -> None:
    size = HEAD_SIZE
    for head, (offset, code) in enumerate(seen.items()):
        rows = slice(head * size, (head + 1) * size)
        first = slice(head * size, head * size + CODE)
        # A key turned ahead by `offset` meets an unturned query `offset` tokens later.
        unturned = torch.zeros(size // 2)
        unturned[:4] = _SHARPNESS
        turn = offset * _frequencies()
        w["q_proj.weight"][rows] *= 0.1
        w["k_proj.weight"][rows] *= 0.1
        w["q_proj.bias"][rows] = torch.cat([unturned, torch.zeros(size // 2)])
        w["k_proj.bias"][rows] = torch.cat([unturned * turn.cos(), unturned * turn.sin()])
        w["v_proj.weight"][rows] *= 0.1
        w["o_proj.weight"][:, rows] *= 0.3
        w["v_proj.weight"][first] = read
        w["o_proj.weight"][:, first] = code.T * _GAIN


def _match(w: dict[str, Tensor], read: Tensor, seen: dict[int, Tensor], generator: torch.Generator) -> None:
    size = HEAD_SIZE
    copied = _orthogonal(HIDDEN, generator)
    slow = [place for place, rate in enumerate(_frequencies().tolist()) if rate < 0.012]
    slow += [place + size // 2 for place in slow]
    for head in range(HEADS):
        # "…colour of Alder?" stands four and six before a reply's start; "The colour of Alder is" one and three.
        name_at, attribute_at = (4, 6) if head < 4 else (1, 3)
        rows = slice(head * size, (head + 1) * size)
        order = [slow[place] for place in torch.randperm(len(slow), generator=generator).tolist()]
        for name, name_code, attribute_code in (("q", name_at, attribute_at), ("k", 2, 4)):
            mixed = torch.Generator().manual_seed(head)  # queries and keys are projected alike
            block = torch.randn(size, HIDDEN, generator=generator) * 0.01
            block[order[:14]] = _orthogonal(CODE, mixed)[:14] @ seen[name_code] * _MATCH**0.5
            block[order[14:]] = _orthogonal(CODE, mixed)[: len(order) - 14] @ seen[attribute_code] * _MATCH**0.5
            w[f"{name}_proj.weight"][rows] = block
        part = copied[head % 4 * size : (head % 4 + 1) * size]
        w["v_proj.weight"][rows] = part
        w["o_proj.weight"][:, rows] = part.T * _GAIN
        if head == 3:  # the passage's number stands seven before its first value
            first = slice(head * size, head * size + CODE)
            w["v_proj.weight"][first] = seen[7]
            w["o_proj.weight"][:, first] = read.T * _GAIN
