"""`eval run --endpoint`: a served run beside its served base, resumed; a served name that is no run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from evaluated_run import ask, lines

from curate.errors import EndpointError
from curate.manifest import read_manifest
from curate.verify import verify
from tutelage import main


class Server:
    """A chat-completions server that knows two models; it can be made to fail."""

    def __init__(self, fails_after: int | None = None, logprobs: bool = True) -> None:
        self.asked: list[dict[str, Any]] = []
        self.logprobs = logprobs
        self.fails_after = fails_after

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            return httpx.Response(400, text="enough")
        body = json.loads(request.content)
        self.asked.append(body)
        colour = "red" if body["model"] == "good" else "blue"
        text = json.dumps({"status": "answered", "answer": colour, "citations": ["p1"]})
        content = [{"token": one, "logprob": -0.1} for one in text]
        told = {"content": content} if self.logprobs else None
        choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": told}
        return httpx.Response(200, json={"choices": [choice], "usage": {"completion_tokens": 30}})


REAL = httpx.Client


def serve(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    def client(headers: dict[str, str], timeout: object, limits: object, transport: object) -> httpx.Client:
        return REAL(headers=headers, transport=httpx.MockTransport(server))

    monkeypatch.setattr("eval.endpoint.httpx.Client", client)


def test_a_served_run_is_answered_beside_its_base(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.endpoint import Served

    def refuse(*_: object) -> None:
        raise AssertionError("a server answers: no weights, no tokenizer")

    monkeypatch.setattr("train.model.load_tuned", refuse)
    monkeypatch.setattr("train.model.load_tokenizer", refuse)
    monkeypatch.setenv("TUTELAGE_API_KEY", "secret-key")
    serve(monkeypatch, Server(fails_after=11))
    where = Served("http://server.test", "good", "plain")
    with pytest.raises(EndpointError, match="enough"):
        ask(run_root, served=where)
    report = run_root / "reports/first-served"
    kept = len(lines(report / "predictions.jsonl"))
    assert kept == 8
    rest = Server()
    serve(monkeypatch, rest)
    _, scores = ask(run_root, served=where)
    assert scores["baseline"]["schema"]["adherence"]["value"] == 1
    assert scores["calibration"]["reliability"]
    assert set(scores["retention"]["sets"]) == {"count", "copy"}
    total = sum(len(lines(report / name)) for name in read_manifest(report, "report").files if name.endswith("s.jsonl"))
    assert total > kept
    assert set(read_manifest(report, "report").inputs) == {"run", "release"}
    assert all(line["tokens"] == 30 for line in lines(report / "predictions.jsonl"))
    everything = b"".join(path.read_bytes() for path in report.iterdir())
    assert b"secret-key" not in everything
    assert b"server.test" not in everything
    again = Server()
    serve(monkeypatch, again)
    ask(run_root, served=where)
    assert again.asked == [], "finished, nothing is asked"
    assert [one for one in verify(report, run_root).findings if "reports" in one.where] == []


def test_a_served_name_needs_no_run(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eval.endpoint import Served

    serve(monkeypatch, Server())
    report, scores = ask(run_root, model="hosted", served=Served("http://server.test", "good"), limit=3, samples=2)
    assert report.name == "hosted-on-r-limit-3"
    assert scores["baseline"] is None
    manifest = read_manifest(report, "report")
    assert manifest.inputs["model"].path == "endpoint:good"
    found = verify(report, run_root)
    assert [one for one in found.findings if "reports" in one.where] == []
    assert any("cannot be verified" in note for note in found.notes)


def test_drawn_answers_do_where_a_server_has_no_logprobs(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mend that the refusal names."""
    serve(monkeypatch, Server(logprobs=False))
    command = ["-C", str(run_root), "eval", "run", "hosted", "--endpoint", "http://server.test", "--model", "good"]
    command += ["--limit", "2", "--name", "drawn"]
    assert "--samples 5" in CliRunner().invoke(main, command).output
    result = CliRunner().invoke(main, [*command, "--samples", "5"])
    assert result.exit_code in (0, 3, 4), result.output
    assert {line["confidence"] for line in lines(run_root / "reports/drawn/predictions.jsonl")} == {1.0}


def test_options_of_an_endpoint_need_one(run_root: Path) -> None:
    result = CliRunner().invoke(main, ["-C", str(run_root), "eval", "run", "first", "--model", "x"])
    assert result.exit_code == 2
    assert "--endpoint" in result.output
