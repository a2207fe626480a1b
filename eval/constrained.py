"""Constrained decoding: at every step only tokens that keep the output inside the JSON Schema, by llguidance.

What such an engine buys without any training is worth knowing beside what training buys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from curate.errors import TrainingError
from curate.pointer import same_json

INSTALL = "pip install 'tutelage[constrained]'"


# as `Behaviour.text` writes JSON: with white space left free a model can go on with it until its tokens are used up
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammar:
    """A schema, a tokenizer and a model's stop tokens (the tokenizer's if not given), compiled once.

    `size` is the width of the model's logits. Raises `TrainingError`.

    `ignored` are the keywords that the engine does not know: outputs may break those.
    """

    def __init__(self, schema: Any, tokenizer: Any, stop: Sequence[int] | None = None, size: int = 0) -> None:
        engine, adapter = _engine()
        size = max(len(tokenizer), size)
        try:
            self.tokenizer = adapter.from_tokenizer(tokenizer, n_vocab=size, eos_token=stop and list(stop), slices=[])
        except ValueError as error:
            raise TrainingError(f"the tokenizer cannot be bound to a schema: {error}") from error
        self.matcher = engine.LLMatcher
        plain = split_conditions(schema if schema is not None else {})
        self.grammar = self.matcher.grammar_from_json_schema(json.dumps(plain), overrides={"lenient": True, **SPACING})
        failed, said = self.matcher.validate_grammar_with_warnings(self.grammar, self.tokenizer)
        if failed:
            raise TrainingError(f"the schema cannot be turned into a grammar: {'; '.join(said)[:300]}")
        self.ignored = sorted({key for one in said for key in re.findall(r'"([^"]+)"', one)})

    def processor(self, width: int) -> Processor:
        """A logits processor for one batch whose prompts are `width` tokens wide."""
        return Processor(self, width)


class Processor:
    """Forbids, row by row, every token that would leave the grammar. Called by `generate` with [rows, length] ids."""

    def __init__(self, grammar: Grammar, width: int) -> None:
        self._grammar = grammar
        self._width = width
        self._rows: list[Any] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import numpy as np
        import torch

        if input_ids.shape[1] == self._width:
            made = self._grammar.matcher(self._grammar.tokenizer, self._grammar.grammar)
            self._rows = [made.deep_copy() for _ in range(input_ids.shape[0])]
        else:
            for row, token in zip(self._rows, input_ids[:, -1].tolist(), strict=True):
                if not row.is_stopped():
                    row.consume_token(token)
        for at, row in enumerate(self._rows):
            if row.is_stopped():
                continue  # what the batch pads this row with is cut off
            bits = np.unpackbits(np.frombuffer(row.compute_bitmask(), dtype=np.uint8), bitorder="little")
            allowed = torch.from_numpy(bits[: scores.shape[1]].astype(bool)).to(scores.device)
            scores[at, : allowed.shape[0]].masked_fill_(~allowed, float("-inf"))
            scores[at, allowed.shape[0] :] = float("-inf")
        return scores


def split_conditions(schema: Any) -> Any:
    """The schema with if/then/else at its top on one `const` or `enum` written as alternatives, which engines know.

    {if: {k in A}, then: T, else: E} is (k in A and T) or (k not in A and E), where `properties` lists k's values. Any
    other shape is left as it is; nothing is lost where the validator asks for less than the engine ensures.
    """
    if not isinstance(schema, dict) or "if" not in schema or "$ref" in schema:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("if", "then", "else", "$defs")}
    found = _condition(schema)
    if found is None:
        return schema
    name, inside, outside = found
    branches = [(inside, schema.get("then", True)), (outside, schema.get("else", True))]
    split = [
        {"allOf": [rest, {"properties": {name: {"enum": values}}}, more]}
        for values, more in branches
        if values and more is not False
    ]
    return {"anyOf": split, **({"$defs": schema["$defs"]} if "$defs" in schema else {})}


def _condition(schema: dict[str, Any]) -> tuple[str, list[Any], list[Any]] | None:
    """The property an `if` decides on, its values for which the `if` holds, and the others; None for other shapes."""
    asked = schema["if"]
    tested = asked.get("properties") if isinstance(asked, dict) else None
    own = schema.get("properties")
    if not isinstance(tested, dict) or len(tested) != 1 or not isinstance(own, dict):
        return None
    if set(asked) - {"properties", "required"}:
        return None
    name, rule = next(iter(tested.items()))
    values = own.get(name, {}).get("enum") if isinstance(own.get(name), dict) else None
    if not isinstance(values, list) or name not in schema.get("required", []) or not isinstance(rule, dict):
        return None
    if set(rule) == {"const"}:
        wanted = [rule["const"]]
    elif set(rule) == {"enum"}:
        wanted = rule["enum"]
    else:
        return None
    return name, [one for one in values if _one_of(one, wanted)], [one for one in values if not _one_of(one, wanted)]


def _one_of(value: Any, wanted: list[Any]) -> bool:
    return any(same_json(value, one) for one in wanted)


def _engine() -> tuple[Any, Any]:
    try:
        import llguidance
        import llguidance.hf
    except ImportError:
        raise TrainingError("constrained decoding needs llguidance", fix=INSTALL) from None
    return llguidance, llguidance.hf


def ignored_keywords(schema: Any, tokenizer: Any) -> list[str]:
    """The keywords of a schema that the engine does not know; outputs may break those."""
    return Grammar(schema, tokenizer).ignored


def engine_name() -> str:
    """The engine and its version."""
    from importlib.metadata import version

    return f"llguidance {version('llguidance')}"
