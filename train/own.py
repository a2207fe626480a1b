"""The base's own answers, made once and kept by the hash of what they depend on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.files import parse_json, sha256_value, write_text
from train.bars import counting
from train.generation import generate
from train.processes import from_main, share
from train.recipe import Quantization

BATCH = 64


@dataclass(frozen=True)
class OwnWords:
    """A base that answers greedily, and where its answers are kept."""

    model: Any
    tokenizer: Any
    quantization: Quantization
    base_sha256: str
    cache: Path

    def answers(self, kind: str, prompts: Sequence[str], most_tokens: int) -> dict[str, list[int]]:
        """Rendered prompt -> token ids of its answer, the stop token with them; `kind` names the file they are kept in.

        The tokens are those the base produced, so nothing is tokenised anew. An answer that did not end within
        `most_tokens` has no stop token.
        """
        asked = list(dict.fromkeys(prompts))
        key = sha256_value([self.base_sha256, self.quantization.model_dump(), asked, most_tokens])
        path = self.cache / f"{kind}-{key[:32]}.jsonl"
        known = from_main(lambda: _read(path, asked))
        if known is not None:
            return known
        with counting(f"the base answers for {kind.replace('-', ' ')}", len(asked)) as progress:
            found = share(
                asked,
                lambda part: [
                    list(one.token_ids)
                    for one in generate(self.model, self.tokenizer, part, most_tokens, BATCH, progress=progress)
                ],
            )
        answers = dict(zip(asked, found, strict=True))
        lines = (json.dumps({"prompt": prompt, "token_ids": ids}) for prompt, ids in answers.items())
        from_main(lambda: write_text(path, "".join(f"{line}\n" for line in lines)))
        return answers


def _read(path: Path, prompts: Sequence[str]) -> dict[str, list[int]] | None:
    """The kept answers; None where there are none, or not for just these prompts."""
    try:
        rows = [parse_json(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        answers = {row["prompt"]: [int(one) for one in row["token_ids"]] for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return answers if list(answers) == list(prompts) else None
