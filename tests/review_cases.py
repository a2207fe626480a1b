"""What reviewers may say of a small pair, and a workspace of such pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from output_form import SCHEMA, UNKNOWN

from curate.behaviour import Behaviour
from curate.consensus import (
    Entry,
    adjudication_version,
    read_judgement,
    version_of,
)
from curate.layout import editable
from curate.pairs import Pair, make_pair, write_pairs
from curate.workspace import Workspace

WRITTEN: dict[str, Any] = {
    "name": "support",
    "prompt": "{{ question }} {{ passages }}",
    "output": {"format": "json", "schema": "schema.json"},
    "abstain": {"where": "/status", "equals": "unknown", "output": UNKNOWN},
    "answer": {"at": "/answer"},
    "citations": {"at": "/citations"},
}
BEHAVIOUR = Behaviour.model_validate({**WRITTEN, "schema_document": SCHEMA})


def output(answer: str, *cited: str) -> dict[str, Any]:
    return {"status": "answered", "answer": answer, "citations": list(cited) or ["p1"]}


def pair_of(number: int = 0) -> Pair:
    passages = [{"id": "p1", "text": f"Fact {number}: it is red {number}.", "source": f"doc-{number}.md#1"}]
    question = f"What colour is thing {'abcdefghij'[number % 10] * 5} {number}?"
    return make_pair(
        {
            "id": f"q{number:02}",
            "question": question,
            "passages": passages,
            "output": output("red"),
            "answerable": True,
            "source": "log-a" if number % 2 else "log-b",
        },
        "t",
    )


PAIR = pair_of()
ACCEPT = {"decision": "accept", "answerable": "yes", "corrected": editable(PAIR.output, BEHAVIOUR)}
REJECT = {"decision": "reject", "answerable": "no"}


def fix(answer: str, *cited: str, answerable: str = "yes") -> dict[str, str]:
    return {"decision": "fix", "answerable": answerable, "corrected": json.dumps(output(answer, *cited))}


def entry(reviewer: str, answers: dict[str, str], status: str = "submitted", pair: Pair = PAIR, **more: Any) -> Entry:
    made = {
        "pair": pair.id,
        "version": version_of(pair),
        "round": "review",
        "reviewer": reviewer,
        "status": status,
        "answers": answers,
        "started": "2026-01-01T10:00:00",
        "at": "2026-01-01T10:01:00",
        "response": f"{pair.id}-{reviewer}",
        "record": f"record-{pair.id}",
    }
    return Entry.model_validate({**made, **more})


def ruling(reviewer: str, answers: dict[str, str], *said: Entry) -> Entry:
    judged = sorted((read_judgement(one, PAIR, BEHAVIOUR) for one in said), key=lambda one: one.reviewer)
    return entry(reviewer, answers, round="adjudication", version=adjudication_version(PAIR, judged))


def make_workspace(root: Path, pairs: int = 12) -> Workspace:
    import yaml

    root.mkdir(exist_ok=True)
    (root / "behaviour.yaml").write_text(yaml.safe_dump(WRITTEN), encoding="utf-8")
    (root / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    write_pairs(root / "pairs.jsonl", map(pair_of, range(pairs)))
    return Workspace(root)
