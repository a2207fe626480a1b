"""Pair -> tokens and loss mask, and the template contract. Pure: a tokenizer goes in, numbers come out.

The loss stands on the answer and the one stop token after it. Where the answer begins is found by rendering the prompt
alone, as a server will, and never by marks in the template, which many templates lack or set wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.errors import TrainingError
from curate.files import sha256_text

Message = dict[str, str]


@dataclass(frozen=True)
class Fault:
    """Why a pair cannot be trained on: a rule of docs/rules-train.md and what was seen."""

    rule: str
    message: str


@dataclass(frozen=True)
class Rendered:
    """One example as the model sees it. `ids[prompt_tokens:]` carry loss; `ids` ends with the stop token."""

    id: str
    prompt: str
    answer: str
    ids: tuple[int, ...]
    prompt_tokens: int
    faults: tuple[Fault, ...] = ()
    text: str = ""  # the whole conversation as rendered, before the cut after the stop token


def with_arguments(template: str, arguments: Mapping[str, bool | int | str]) -> str:
    """The template with its arguments set in its first line, so that whoever renders it later need not know them."""
    return "".join(f"{{%- set {name} = {json.dumps(value)} -%}}" for name, value in arguments.items()) + template


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The prompt as text, ending where the model's answer begins. Raises `TrainingError` where the template refuses."""
    return _apply(tokenizer, messages, add_generation_prompt=True)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered texts; the template has already written the special tokens. [texts] lists of ids."""
    return [list(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def pad_of(tokenizer: Any) -> int:
    """What rows are filled up with; never seen by the model, so 0 does where the tokenizer has none."""
    return int(tokenizer.pad_token_id or 0)


def render_pairs(
    tokenizer: Any, items: Sequence[tuple[str, list[Message], str]], stop: Sequence[int]
) -> list[Rendered]:
    """Render (id, messages, answer) triples. What is wrong with one stands in its `faults`; nothing is cut or mended.

    What the template writes after the stop token (ChatML: a line break) is left out: the model never gets that far.
    """
    told = [_told(tokenizer, messages, answer) for _, messages, answer in items]
    refused = [one for one in told if isinstance(one, TrainingError)]
    if refused and len(refused) == len(items):
        raise refused[0]
    prompts, full = (["" if isinstance(one, TrainingError) else one[i] for one in told] for i in (0, 1))
    prompt_ids, full_ids = encode(tokenizer, prompts), encode(tokenizer, full)
    return [
        Rendered(item[0], "", item[2], (), 0, (Fault("template-refuses", one.what),))
        if isinstance(one, TrainingError)
        else _rendered(tokenizer, item, one[1], (one[0], tuple(prompt_ids[i]), tuple(full_ids[i])), frozenset(stop))
        for i, (item, one) in enumerate(zip(items, told, strict=True))
    ]


def _told(tokenizer: Any, messages: list[Message], answer: str) -> tuple[str, str] | TrainingError:
    """(prompt, whole conversation) as the template writes them, or why it refuses these messages."""
    try:
        whole = [*messages, {"role": "assistant", "content": answer}]
        return render_prompt(tokenizer, messages), _apply(tokenizer, whole, add_generation_prompt=False)
    except TrainingError as error:
        return error


def _rendered(
    tokenizer: Any,
    item: tuple[str, list[Message], str],
    text: str,
    rendered: tuple[str, tuple[int, ...], tuple[int, ...]],
    stop: frozenset[int],
) -> Rendered:
    name, messages, answer = item
    prompt, prompt_ids, ids = rendered
    start = len(prompt_ids)
    wrong = _prompt_fault(prompt, prompt_ids, text, ids, answer)
    if wrong:
        fault = Fault("prompt-mismatch", wrong + _cause(messages, prompt, text))
        return Rendered(name, prompt, answer, ids, min(start, len(ids)), (fault,))
    at = next((i for i in range(start, len(ids)) if ids[i] in stop), None)
    if at is None:
        tail = text[len(prompt) + len(answer) :]
        known = ", ".join(repr(tokenizer.convert_ids_to_tokens(one)) for one in sorted(stop)) or "none"
        message = f"after the answer the template writes {tail!r}, which holds no stop token (these are: {known})"
        return Rendered(name, prompt, answer, ids, start, (Fault("stop-token-not-learned", message),))
    faults = []
    ids = ids[: at + 1]
    if at == start and answer.strip():
        faults.append(Fault("no-loss-tokens", "nothing of the answer is left before the stop token"))
    learned = tokenizer.decode(list(ids[start:at]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    said, wanted = _normalised(tokenizer, learned), _normalised(tokenizer, answer)
    if not faults and wanted.startswith(said) and said != wanted:
        faults.append(Fault("control-token", f"the answer itself holds the stop token, after {learned[-40:]!r}"))
    elif not faults and said != wanted:
        message = f"the tokens that carry loss say {learned[:80]!r}, the answer is {answer[:80]!r}"
        faults.append(Fault("loss-on-prompt", message))
    return Rendered(name, prompt, answer, ids, start, tuple(faults), text)


def _normalised(tokenizer: Any, text: str) -> str:
    """A text as the tokenizer reads it: some write accented letters anew (NFC) before they look at them."""
    normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
    return str(normalizer.normalize_str(text.strip()) if normalizer else text).strip()


def _prompt_fault(prompt: str, prompt_ids: tuple[int, ...], text: str, ids: tuple[int, ...], answer: str) -> str | None:
    """How the prompt rendered alone differs from the start of the whole conversation; None where it does not."""
    if not text.startswith(prompt):
        at = next(
            (i for i, (a, b) in enumerate(zip(prompt, text, strict=False)) if a != b), min(len(prompt), len(text))
        )
        return f"the prompt goes on with {prompt[at : at + 40]!r}, the trained conversation with {text[at : at + 40]!r}"
    rest = text[len(prompt) :].lstrip()  # white space before the answer (Mistral) is learned and served with it
    if not rest.startswith(answer.strip()):
        return f"the template writes {rest[:40]!r} where the answer should begin"
    if ids[: len(prompt_ids)] != prompt_ids:
        return "the last tokens of the prompt join with the first of the answer"
    return None


def _cause(messages: Sequence[Message], prompt: str, text: str) -> str:
    """What is known to make a family's template do so, with its mend."""
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    if system and system in prompt and system not in text:
        return (
            ": the template drops the system text once an answer follows (Mistral); put the text of the behaviour's "
            "`system` at the head of its `prompt` instead"
        )
    if "<think>" in text and "<think>" not in prompt:
        return (
            ": the template puts a thinking block before an answer; where it can be told not to (Qwen3), set "
            "base.template_arguments: {enable_thinking: false}"
        )
    return ""


def contract(tokenizer: Any, stop: Sequence[int], messages: Sequence[Message] | None = None) -> dict[str, Any]:
    """What a server must do exactly as training did: template, special tokens, and a prompt rendered as an example."""
    example = list(messages or [{"role": "user", "content": "An example question."}])
    return {
        "template_sha256": sha256_text(str(tokenizer.chat_template)),
        "stop_tokens": [{"id": one, "text": tokenizer.convert_ids_to_tokens(one)} for one in stop],
        "bos_token": tokenizer.bos_token,
        "pad_token": tokenizer.pad_token,
        "special_tokens_added": False,
        "example": {"messages": example, "prompt": render_prompt(tokenizer, example)},
    }


def follows_the_date(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Whether the template writes today's date into the prompt: trained today, it would be another one tomorrow."""
    template = str(tokenizer.chat_template)
    if "strftime_now" not in template:
        return False
    told = set()
    for day in ("one day", "another day"):
        own = f"{{%- macro strftime_now(form) -%}}{day}{{%- endmacro -%}}{template}"
        told.add(
            tokenizer.apply_chat_template(list(messages), chat_template=own, add_generation_prompt=True, tokenize=False)
        )
    return len(told) > 1


def _apply(tokenizer: Any, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    from jinja2 import TemplateError

    try:
        return str(
            tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
        )
    except (TemplateError, ValueError, TypeError) as error:
        if messages[0]["role"] == "system" and len(messages) > 1:
            _apply(tokenizer, messages[1:], add_generation_prompt)  # raises where the system text is not to blame
            raise TrainingError(
                f"the base's chat template takes no system message: {error}",
                fix="put the text of the behaviour's `system` at the head of its `prompt`, and leave `system` out; an "
                "item's `system` belongs into its prompt likewise",
            ) from error
        raise TrainingError(
            f"the base's chat template refuses a conversation: {error}",
            fix="most templates want user and assistant in turn, the user first: change the behaviour's `prompt` or "
            "the pair's history",
        ) from error
