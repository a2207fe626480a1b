"""A Modelfile for Ollama. Its templates are Go's, so the chat template is taken apart and proven piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.rendering import Message

SYSTEM, USER, ANSWER, AGAIN = "sysword", "userword", "answerword", "againword"


@dataclass(frozen=True)
class Pieces:
    """What a chat template writes around each message; `opening` once before all, `generation` before an answer."""

    opening: str
    before: dict[str, str]
    after: dict[str, str]
    generation: str

    def render(self, messages: Sequence[Message]) -> str:
        """A prompt written with the pieces, as Ollama will."""
        said = "".join(f"{self.before[one['role']]}{one['content']}{self.after[one['role']]}" for one in messages)
        return f"{self.opening}{said}{self.generation}"


def modelfile(tokenizer: Any, contract: dict[str, Any], context_tokens: int) -> str:
    """A Modelfile for the merged model in its directory."""
    lines = ["# ollama create NAME --file Modelfile", "FROM ."]
    pieces = take_apart(tokenizer)
    if pieces:
        lines.append(f'TEMPLATE """{go_template(pieces, _adds_bos(tokenizer))}"""')
    else:
        lines.append(
            "# No plain Go template repeats this chat template. Ollama picks one by itself: compare the prompt it "
            "makes with contract.json before you trust it."
        )
    lines += [f'PARAMETER stop "{one["text"]}"' for one in contract["stop_tokens"]]
    return "\n".join([*lines, "PARAMETER temperature 0", f"PARAMETER num_ctx {context_tokens}", ""])


def take_apart(tokenizer: Any) -> Pieces | None:
    """The pieces, or None where joining them does not give, letter by letter, what the template writes."""
    messages = {
        role: {"role": name, "content": text}
        for role, name, text in (
            ("s", "system", SYSTEM), ("u", "user", USER), ("a", "assistant", ANSWER), ("v", "user", AGAIN)
        )
    }  # fmt: skip

    def written(roles: str, generate: bool = False) -> str:
        chosen = [messages[role] for role in roles]
        return str(tokenizer.apply_chat_template(chosen, tokenize=False, add_generation_prompt=generate))

    from jinja2 import TemplateError

    try:
        after_user = _after(written("u"), USER)
        generation = _after(written("u", True), USER).removeprefix(after_user)
        after_answer = _after(written("ua"), ANSWER)
        before_answer = _between(written("ua"), USER, ANSWER).removeprefix(after_user)
        before_user = _between(written("uav"), ANSWER, AGAIN).removeprefix(after_answer)
        opening = written("u").partition(USER)[0].removesuffix(before_user)
        before_system = written("su").partition(SYSTEM)[0].removeprefix(opening)
        after_system = _between(written("su"), SYSTEM, USER).removesuffix(before_user)
        pieces = Pieces(
            opening,
            {"system": before_system, "user": before_user, "assistant": before_answer},
            {"system": after_system, "user": after_user, "assistant": after_answer},
            generation,
        )
        plain = ["u", "su", "uav", "suav", "suavau"]
        same = all(pieces.render([messages[role] for role in one]) == written(one, True) for one in plain)
    except (TemplateError, ValueError, TypeError):
        return None
    texts = [pieces.opening, pieces.generation, *pieces.before.values(), *pieces.after.values()]
    return pieces if same and not any(mark in text for text in texts for mark in ("{{", "}}", '"""')) else None


def go_template(pieces: Pieces, adds_bos: bool) -> str:
    """The pieces as a Go template. Ollama writes the opening itself where the tokenizer does."""
    roles = [
        f'if eq .Role "{role}" }}}}{pieces.before[role]}{{{{ .Content }}}}{pieces.after[role]}'
        for role in ("system", "user", "assistant")
    ]
    opening = "" if adds_bos else pieces.opening
    body = "{{ else ".join(roles)
    return f"{opening}{{{{ range .Messages }}}}{{{{ {body}{{{{ end }}}}{{{{ end }}}}{pieces.generation}"


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer(USER)["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _after(text: str, word: str) -> str:
    return text.partition(word)[2]


def _between(text: str, left: str, right: str) -> str:
    return _after(text, left).partition(right)[0]
