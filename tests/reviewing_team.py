"""A team at work for the slow tests: a served Argilla that can be killed, and reviewers who send what its pages do."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner, Result
from output_form import SCHEMA, UNKNOWN

import tutelage
from curate.pairs import Pair, make_pair, write_pairs

ROOT = Path(__file__).parent.parent
PAIRS = 300
REVIEWERS = ("anna", "ben", "chris")
PEOPLE = [part for name in REVIEWERS for part in ("--annotator", name)]
BEHAVIOUR = """
name: support answers
system: Answer from the passages only.
prompt: "{% for p in passages %}[{{ p.id }}] {{ p.text }} {% endfor %}Question: {{ question }}"
output: {format: json, schema: schema.json}
abstain: {where: /status, equals: unknown, output: {status: unknown, answer: null, citations: []}}
answer: {at: /answer, compare: exact}
citations: {at: /citations}
gate: {hallucination_rate: {at_most: 0.05}}
"""
PLACES = ["Lisbon", "Oslo", "Quito", "Perth", "Turin", "Accra", "Hanoi", "Sofia", "Lima", "Cairo"]
SUBJECTS = ["harbour", "library", "observatory", "tram depot", "botanical garden", "court", "mint", "lighthouse"]


def synthetic_pair(number: int) -> Pair:
    """A question on a document of its own; every fourth has no answer in its passages."""
    draw = random.Random(number)
    subject, place = draw.choice(SUBJECTS), draw.choice(PLACES)
    year, noise = (
        1700 + draw.randrange(300),
        " ".join(draw.choice(SUBJECTS) + str(draw.randrange(10**6)) for _ in range(12)),
    )
    holds = number % 4 != 0
    told = f"The {subject} of {place} was opened in {year}." if holds else f"The {subject} of {place} is well known."
    output = {"status": "answered", "answer": str(year), "citations": ["p1"]} if holds else UNKNOWN
    return make_pair(
        {
            "id": f"pair-{number:03}",
            "question": f"When was the {subject} of {place} opened ({noise.split()[0]})?",
            "passages": [
                {"id": "p1", "text": f"{told} {noise}", "source": f"guide-{number}.md#1"},
                {"id": "p2", "text": f"Opening hours & prices: <see> {noise[::-1]}", "source": f"guide-{number}.md#2"},
            ],
            "output": output,
            "answerable": holds,
            "source": "log-a" if number % 2 else "log-b",
        },
        "synthetic",
    )


def make_workspace(root: Path, pairs: int = PAIRS) -> Path:
    _make_bare_workspace(root)
    write_pairs(root / "pairs.jsonl", map(synthetic_pair, range(pairs)))
    return root


def _make_bare_workspace(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "behaviour.yaml").write_text(BEHAVIOUR, encoding="utf-8")
    (root / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")


def squad_log() -> Path | None:
    """A log of RAG traces made from SQuAD 2.0, too large to be committed: `$TUTELAGE_SQUAD_LOG`, else beside us."""
    given = os.environ.get("TUTELAGE_SQUAD_LOG")
    path = Path(given) if given else ROOT.parent / "shared" / "data" / "squad2-rag-log.jsonl"
    assert path.is_file() or not given, f"TUTELAGE_SQUAD_LOG={given}: no such file"
    return path if path.is_file() else None


def make_log_workspace(root: Path) -> Path:
    """300 traces of the SQuAD log, spread over its documents; 300 made-up pairs where the log is not there."""
    log = squad_log()
    if log is None:
        return make_workspace(root)
    _make_bare_workspace(root)
    lines = log.read_text(encoding="utf-8").splitlines()
    traces = root / "rag-log.jsonl"
    traces.write_text("\n".join(lines[:: len(lines) // PAIRS][:PAIRS]) + "\n", encoding="utf-8")
    run(
        root, "curate", "import", str(traces), "--map", "id=trace_id", "--map", "question=query",
        "--map", "passages=documents", "--map", "output.answer=answer", "--map", "output.citations=gold_doc",
        "--map", "answerable=accepted_answers", "--map", "accepted=accepted_answers",
        "--set", "output.status=answered", "--abstain-unanswerable", "--renumber-passages",
    )  # fmt: skip
    return root


class Server:
    """`tutelage curate serve` in a process of its own, which can be killed and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        self.ready_seconds: list[float] = []

    def start(self) -> dict[str, Any]:
        before = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tutelage", "-C", str(self.root), "curate", "serve", "--json",
             "--port", str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            # A background job of a shell ignores Ctrl-C and so would its children: the tests must not depend on it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert self.process.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read() if self.process.stderr else ""
            text += line
        self.ready_seconds.append(time.monotonic() - before)
        found: dict[str, Any] = json.loads(text)
        return found

    def server_pid(self) -> int:
        return int(json.loads((self.root / ".argilla" / "server.json").read_text())["pid"])

    def kill_and_restart(self) -> None:
        """kill -9 the server itself; the command ends with one message; start it again."""
        assert self.process is not None
        os.kill(self.server_pid(), signal.SIGKILL)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 1
        assert "has ended by itself" in errors
        assert "Traceback" not in errors
        self.start()

    def stop(self) -> float:
        assert self.process is not None
        before = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=60)
        finally:
            self.process.kill()  # nothing of a test that failed stays behind
        return time.monotonic() - before


def run(root: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(tutelage.main, ["-C", str(root), *arguments])
    assert done.exit_code == 0, done.output + done.stderr
    return done


def run_json(root: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(root, *arguments, "--json").stdout)
    return found


class Person:
    """A reviewer at work, through the same requests as Argilla's pages send."""

    def __init__(self, server: Server, name: str) -> None:
        passwords = json.loads((server.root / ".argilla" / "passwords.json").read_text())
        self.http = httpx.Client(base_url=f"{server.url}/api/v1", timeout=120, trust_env=False)
        login = {"username": name, "password": passwords[server.url][name]}
        token = self.http.post("/token", data=login).raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def board(self) -> str:
        items = self.http.get("/me/datasets").raise_for_status().json()["items"]
        assert len(items) == 1
        return str(items[0]["id"])

    def queue(self, status: str = "pending", limit: int = 1000) -> list[dict[str, Any]]:
        """What the page offers: records with no answer of this person's that still want one."""
        scope = {"entity": "response", "property": "status"}
        filters = [{"type": "terms", "scope": scope, "values": [status]}]
        if status == "pending":
            filters.append(
                {"type": "terms", "scope": {"entity": "record", "property": "status"}, "values": ["pending"]}
            )
        found: list[dict[str, Any]] = []
        while True:
            answer = self.http.post(
                f"/me/datasets/{self.board()}/records/search",
                json={"filters": {"and": filters}},
                params={"limit": min(limit, 500), "offset": len(found), "include": ["suggestions"]},
            )
            page = answer.raise_for_status().json()["items"]
            found += [item["record"] for item in page]
            if len(page) < 500:
                return found

    def submit(self, answers: list[tuple[str, dict[str, str]]]) -> None:
        """Submit answers to records, by the record's id in Argilla."""
        for start in range(0, len(answers), 50):
            items = [
                {
                    "record_id": record,
                    "status": "submitted",
                    "values": {name: {"value": value} for name, value in said.items()},
                }
                for record, said in answers[start : start + 50]
            ]
            done = self.http.post("/me/responses/bulk", json={"items": items}).raise_for_status().json()["items"]
            assert all(one["item"] is not None for one in done), done


def suggested(pair: Pair) -> str:
    """What the box for the corrected output begins with."""
    return json.dumps(pair.output, indent=2, ensure_ascii=False)


def corrected(pair: Pair) -> str:
    """A correction that two reviewers spell alike."""
    return json.dumps({"status": "answered", "answer": f"in {pair.id}", "citations": ["p1"]})
