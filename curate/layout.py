"""How a pair looks in Argilla: fields, questions, metadata, guidelines. Pure; the same on any Argilla.

Names of questions must not end in score, agent, type or response: Argilla's own filters take those for its own.
"""

from __future__ import annotations

import html
import json
import re
import string
from collections.abc import Iterable, Mapping
from typing import Any

from curate.behaviour import Behaviour
from curate.pairs import Pair, Passage

LAYOUT = 1  # of the datasets; another number is another version's
Json = dict[str, Any]

DECISION, CORRECTED, ANSWERABLE, WHY = "decision", "corrected", "answerable", "why"
QUESTION, HISTORY, PASSAGES, PROPOSED, NOTICE, ANSWERS = (
    "question", "history", "passages", "proposed", "notice", "answers",
)  # fmt: skip
VERSION = "version"
SUGGESTED = "suggested"  # of a record: what the corrected output begins with
_GUIDELINES_LIMIT = 10_000
_NO_BREAK = "\u00a0"


def fields(adjudication: bool) -> list[Json]:
    """The fields of a dataset, in the order a reviewer reads them."""
    conversation = {
        "name": HISTORY,
        "title": "The conversation before it",
        "required": False,
        "settings": {"type": "chat", "use_markdown": False},
    }
    said = _text_field(ANSWERS, "What the reviewers said", required=True, markdown=True)
    return [
        _text_field(NOTICE, "Returned: please look again", required=False, markdown=True),
        conversation,
        _text_field(QUESTION, "The question", required=True, markdown=False),
        _text_field(PROPOSED, "The proposed output", required=True, markdown=True),  # above the fold
        *([said] if adjudication else []),
        _text_field(PASSAGES, "The passages", required=True, markdown=True),
    ]


def _text_field(name: str, title: str, *, required: bool, markdown: bool) -> Json:
    settings = {"type": "text", "use_markdown": markdown}
    return {"name": name, "title": title, "required": required, "settings": settings}


def questions(is_json: bool) -> list[Json]:
    """What a reviewer answers, in order; how an output is mended depends on whether it is JSON."""
    form = "Change the words between the quotation marks. Leave the quotation marks, brackets and commas as they are."
    return [
        _label(
            ANSWERABLE,
            "1. Do the passages hold the answer?",
            "Judge by the passages alone, not by what you know.",
            {"yes": "Yes", "no": "No"},
        ),
        _label(
            DECISION,
            "2. Is the proposed output right?",
            "Fix: correct it in 3. Reject: the question itself should not be used.",
            {"accept": "Accept, as it stands", "fix": "Fix it", "reject": "Reject the question"},
        ),
        _text(
            CORRECTED,
            "3. Only if you fix it: the right output",
            form if is_json else "Change what is wrong. The output is plain text: all that stands in the box.",
        ),
        _text(WHY, "4. Why? (optional)", "A word to the others, above all where you reject."),
    ]


def _label(name: str, title: str, description: str, options: Mapping[str, str]) -> Json:
    listed = [{"value": value, "text": text} for value, text in options.items()]
    settings = {"type": "label_selection", "options": listed}
    return {"name": name, "title": title, "description": description, "required": True, "settings": settings}


def _text(name: str, title: str, description: str) -> Json:
    settings = {"type": "text", "use_markdown": False}
    return {"name": name, "title": title, "description": description, "required": False, "settings": settings}


def metadata_properties() -> list[Json]:
    """What reviewers and the one who runs the round can filter and sort by."""
    terms = {
        "source": "Source",
        "findings": "Findings of curate check",
        "answerable": "Answerable, as proposed",
        "split": "Split it will go to",
    }
    made = [
        {"name": name, "title": title, "settings": {"type": "terms"}, "visible_for_annotators": True}
        for name, title in terms.items()
    ]
    hidden = {"name": VERSION, "title": "Version", "settings": {"type": "terms"}, "visible_for_annotators": False}
    return [*made, hidden]


def metadata(
    pair: Pair, behaviour: Behaviour, version: str, findings: Iterable[str] = (), split: str | None = None
) -> Json:
    """What a record says about its pair, to filter by; `version` says which content of the pair this is."""
    said: Json = {
        "source": pair.source or "not said",
        "findings": sorted(set(findings)) or ["none"],
        "answerable": "yes" if behaviour.is_answerable(pair) else "no",
        VERSION: version,
    }
    return {**said, "split": split} if split else said


def record(pair: Pair, behaviour: Behaviour, described: Json) -> Json:
    """A pair as Argilla takes it; `described` is its `metadata`."""
    shown: Json = {
        QUESTION: _unmarked(pair.question),
        PASSAGES: render_passages(pair.passages),
        PROPOSED: render_output(pair.output, behaviour),
        NOTICE: None,
    }
    if pair.history:
        shown[HISTORY] = [{**turn.model_dump(), "content": _unmarked(turn.content)} for turn in pair.history]
    return {
        "external_id": pair.id,
        "fields": shown,
        "metadata": described,
        SUGGESTED: editable(pair.output, behaviour),
    }


def editable(output: Any, behaviour: Behaviour) -> str:
    """An output as a reviewer edits it: JSON on several lines, or the text itself."""
    if behaviour.is_json or not isinstance(output, str):
        return json.dumps(output, indent=2, ensure_ascii=False)
    return output


def _unmarked(text: str) -> str:
    """Text for a field without Markdown: Argilla's page takes it for HTML as it is, scripts included."""
    return html.escape(text, quote=False)


def _escape(text: str) -> str:
    """Text that Markdown and HTML leave as it is, indented code and tables with it.

    No line is blank, so that a block of HTML goes on to its end.
    """
    safe = _unmarked(text.rstrip()).replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    safe = re.sub(r"\A\s*\n", "", safe)
    # Not &nbsp;, whose name the search would find. The last space between words stays, so that long lines can break.
    safe = re.sub(r"^ +| +(?= )", lambda spaces: _NO_BREAK * len(spaces[0]), safe, flags=re.MULTILINE)
    return safe.replace("\n", "<br>")


def render_passages(passages: Iterable[Passage]) -> str:
    """Each passage under its id and source, as HTML inside Markdown."""
    blocks = []
    for passage in passages:
        source = f" {_NO_BREAK}·{_NO_BREAK} {_escape(passage.source)}" if passage.source else ""
        blocks.append(f"<p><strong>[{_escape(passage.id)}]</strong>{source}</p>\n<p>{_escape(passage.text)}</p>")
    return "\n<hr>\n".join(blocks) or "<p><em>No passages were found for this question.</em></p>"


def render_output(output: Any, behaviour: Behaviour) -> str:
    """An output in words: what each of its keys says, and before that where it says that it does not know."""
    said = "<p><strong>It says that it does not know.</strong></p>\n" if behaviour.abstains(output) else ""
    if not isinstance(output, dict):
        return f"{said}<p>{_escape(_plain(output))}</p>"
    # Where keys may wrap, a long value beside them leaves them two letters wide.
    rows = "\n".join(
        f"<tr><td nowrap><strong>{_escape(str(key))}</strong>\u2003</td><td>{_escape(_plain(value))}</td></tr>"
        for key, value in output.items()
    )
    return f"{said}<table><tbody>\n{rows}\n</tbody></table>"


def _plain(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return "—"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, (str, int, float)) for one in value):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, indent=1)


def render_answers(answers: Iterable[tuple[str, Any, str, str | None]], behaviour: Behaviour) -> str:
    """The reviewers' answers side by side, unnamed: (decision, output it comes to, answerable, why) of each."""
    blocks = []
    for number, (decision, output, answerable, why) in enumerate(answers):
        letter = string.ascii_uppercase[number] if number < 26 else str(number + 1)
        words = {"accept": "accepts the proposed output", "fix": "corrects it", "reject": "rejects the question"}
        holds = "hold" if answerable == "yes" else "do not hold"
        block = f"<p><strong>Reviewer {letter}</strong> {words[decision]}; says the passages {holds} the answer.</p>"
        if decision == "fix":
            block += "\n" + render_output(output, behaviour)
        if why:
            block += f"\n<p>Why: {_escape(why)}</p>"
        blocks.append(block)
    return "\n<hr>\n".join(blocks)


def guidelines(behaviour: Behaviour, adjudication: bool, example: Any = None) -> str:
    """What Argilla shows under the guidelines: the task, step by step, and the behaviour's own rules. Markdown.

    `example` is an output that answers, to copy from where the proposed one does not.
    """
    parts = [f"# {behaviour.name}", _ADJUDICATE if adjudication else _TASK, _output_rules(behaviour)]
    if example is not None:
        parts.append(
            "## When the passages hold the answer\n\nThen the right output looks like this one, which belongs to"
            " another question. Copy it where the proposed output says that it does not know but should have answered,"
            f" and put in what is right here:\n\n```\n{editable(example, behaviour)}\n```"
        )
    if behaviour.abstain:
        example = editable(behaviour.abstain.output, behaviour)
        parts.append(
            "## When the passages do not hold the answer\n\nThen the right output says so, exactly like this:\n\n"
            f"```\n{example}\n```\n\nAn answer you happen to know is wrong if the passages do not hold it."
        )
    if behaviour.vocabulary and behaviour.vocabulary.prefer:
        rows = [f"- **{want}**, not {', '.join(avoid)}" for want, avoid in behaviour.vocabulary.prefer.items()]
        parts.append("## Words\n\n" + "\n".join(rows))
    if behaviour.system:
        parts.insert(2, _told(behaviour.system, _GUIDELINES_LIMIT - sum(len(part) + 2 for part in parts)))
    return "\n\n".join(parts)[:_GUIDELINES_LIMIT]


def _told(system: str, room: int) -> str:
    """The system text to the letter, cut short where it is too long: what a reviewer copies from must stay whole."""
    begun, ended = "## What the assistant is told\n\n<blockquote>", "</blockquote>"
    said, room = _escape(system), room - len(begun) - len(ended)
    if len(said) > room:
        said = re.sub(r"(&[a-z]*|<[^>]*)?$", "", said[: max(0, room - 1)]) + "…"
    return begun + said + ended


_TASK = """## What to do

1. Read **the question** and **the passages**. Do the passages hold the answer? Say yes or no, by the passages alone.
2. Read **the proposed output**. **Accept** it if it is right as it stands. Choose **Fix** if it is not, and correct it
   in the box below. Choose **Reject** if the question should not be used at all (nonsense, private, off topic).
3. Press **Submit**. What you are unsure of can be saved as a draft; **Discard** means: not for me, ask somebody else.

If a card comes back with a notice on top, something in your answer could not be used: the notice says what. It waits
under **Draft** (choose it where it says *Pending*, above the card); mend it and submit again."""
_ADJUDICATE = """## What to do

Reviewers disagree about these. Read the question and the passages, then what each of them said, and decide: your answer
is the one that is used. Answer the questions as a reviewer would; press **Submit**."""


def _output_rules(behaviour: Behaviour) -> str:
    schema = behaviour.schema_document
    if not behaviour.is_json:
        return "## The output\n\nPlain text."
    lines = ["## The output", "", "A small form in which only the values are yours to change:"]
    named = schema.get("properties") if isinstance(schema, dict) else None
    for key, rule in (named or {}).items():
        said = [rule["description"]] if isinstance(rule, dict) and isinstance(rule.get("description"), str) else []
        if isinstance(rule, dict) and isinstance(rule.get("enum"), list):
            said.append("one of " + ", ".join(f"`{json.dumps(one, ensure_ascii=False)}`" for one in rule["enum"]))
        if behaviour.citations and behaviour.citations.at == f"/{key}":
            said.append("the ids of the passages that the answer rests on, as they stand in the square brackets")
        if behaviour.answer and behaviour.answer.at == f"/{key}":
            said.append("the answer itself")
        lines.append(f"- **{key}**" + (f": {'; '.join(said)}" if said else ""))
    lines.append("\n`null` means: nothing stands here.")
    return "\n".join(lines)
