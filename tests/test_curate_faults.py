"""A round of review when things go wrong: nothing lost, nothing doubled, one clear message."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from reviewing_team import PEOPLE, ROOT, Person, Server, make_workspace, run_json, suggested, synthetic_pair

import tutelage
from curate.argilla import boards
from curate.argilla.client import Client
from curate.argilla.credentials import read_credentials
from curate.pairs import read_pairs, write_pairs
from curate.pulling import pull
from curate.review import PushOptions, push
from curate.review_log import Log, review_state
from curate.workspace import Workspace

pytestmark = pytest.mark.slow

N = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(make_workspace(tmp_path_factory.mktemp("faults") / "workspace", pairs=N))
    made.start()
    yield made
    made.stop()


def client(server: Server, transport: httpx.BaseTransport | None = None) -> Client:
    key = read_credentials(server.root / ".argilla").api_key
    return Client(server.url, key, transport=transport, sleep=lambda seconds: None)


def accept(number: int) -> dict[str, str]:
    pair = synthetic_pair(number)
    return {"decision": "accept", "answerable": "yes" if pair.answerable else "no", "corrected": suggested(pair)}


def number_of(record: dict[str, Any]) -> int:
    return int(record["external_id"].split("-")[1])


def impatient(self: Client, url: str, api_key: str, **options: Any) -> None:
    CLIENT_INIT(self, url, api_key, **{**options, "patience": 1.0})


CLIENT_INIT = Client.__init__


def silent(what: str, done: int, total: int) -> None:
    pass


class Flaky(httpx.BaseTransport):
    """A network that fails one request in three: before it arrives, or after it was carried out."""

    def __init__(self, seed: int) -> None:
        self.draw, self.real, self.failed = random.Random(seed), httpx.HTTPTransport(), 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        lot = self.draw.random()
        if lot < 0.1:
            self.failed += 1
            return httpx.Response(500, request=request)
        if lot < 0.2:
            self.failed += 1
            raise httpx.ConnectTimeout("timed out", request=request)
        answer = self.real.handle_request(request)
        if lot < 0.35:
            answer.read()
            answer.close()
            self.failed += 1
            raise httpx.ReadTimeout("timed out", request=request)
        return answer


def test_network_that_fails_one_request_in_three_loses_and_doubles_nothing(server: Server) -> None:
    place = Workspace(server.root)
    network = Flaky(7)
    options = PushOptions(overlap=2, annotators=("anna", "ben", "chris"), adjudicators=("dora",))
    with client(server, network) as unsteady:
        push(unsteady, place, options, silent)
        for name, answer in (
            ("anna", accept),
            ("ben", lambda n: {**accept(n), "decision": "reject"} if n < 5 else accept(n)),
        ):
            person = Person(server, name)
            person.submit([(record["id"], answer(number_of(record))) for record in person.queue()])
        pull(unsteady, place, silent)
        pull(unsteady, place, silent)
    assert network.failed > 10
    assert len(Log(place).entries) == 2 * N
    assert review_state(place).counts() == {"accepted": N - 5, "to adjudicate": 5}
    assert len(Person(server, "dora").queue()) == 5
    with client(server) as steady:
        team = boards.find_team(steady, "support-answers")
        board = boards.open_board(steady, team or "", "support-answers", adjudication=False)
        assert board is not None
        assert sum(len(page) for page in steady.records(board.id)) == N
        assert sorted(user["username"] for user in steady.items("/users")) == ["anna", "ben", "chris", "dora", "owner"]


def test_response_that_a_reviewer_deletes_no_longer_counts(server: Server) -> None:
    place, anna = Workspace(server.root), Person(server, "anna")
    record = next(one for one in anna.queue("submitted") if number_of(one) == 20)
    with client(server) as owner:
        responses = owner.get(f"/records/{record['id']}")["responses"]
    mine = anna.http.get("/me").json()["id"]
    response = next(one for one in responses if one["user_id"] == mine)
    anna.http.delete(f"/responses/{response['id']}").raise_for_status()
    done = run_json(server.root, "curate", "pull")
    assert done["new_responses"] == 1
    assert review_state(place).pairs["pair-020"].outcome == "open"
    assert Log(place).entries[-1].status == "withdrawn"
    assert run_json(server.root, "curate", "pull")["new_responses"] == 0, "said once"
    anna.submit([(record["id"], accept(20))])
    run_json(server.root, "curate", "pull")
    assert review_state(place).pairs["pair-020"].outcome == "accepted"


def test_record_deleted_in_argilla_keeps_what_was_said_and_comes_back_with_a_push(server: Server) -> None:
    place, anna = Workspace(server.root), Person(server, "anna")
    record = next(one for one in anna.queue("submitted") if number_of(one) == 21)
    with client(server) as owner:
        owner.request("DELETE", f"/records/{record['id']}")
    assert run_json(server.root, "curate", "pull")["not_in_argilla"] == ["pair-021"]
    assert review_state(place).pairs["pair-021"].outcome == "accepted", "a record is not what people said of it"
    assert run_json(server.root, "curate", "push")["added"] == ["pair-021"]
    assert run_json(server.root, "curate", "pull")["not_in_argilla"] == []
    assert review_state(place).pairs["pair-021"].outcome == "accepted"


def test_changed_pair_is_reviewed_anew_and_what_was_said_of_the_old_one_is_kept(server: Server) -> None:
    place = Workspace(server.root)
    pairs = read_pairs(place.pairs)
    said = len(Log(place).entries)
    changed = {"output": {"status": "answered", "answer": "1", "citations": ["p1"]}, "answerable": True}
    write_pairs(place.pairs, [one.model_copy(update=changed) if one.id == "pair-022" else one for one in pairs])
    assert review_state(place).pairs["pair-022"].outcome == "open"
    assert run_json(server.root, "curate", "push")["changed"] == ["pair-022"]
    assert len(Log(place).entries) == said, "pulled before, so nothing new; and nothing gone"
    record = next(one for one in Person(server, "anna").queue() if number_of(one) == 22)
    assert '"answer": "1"' in record["suggestions"][0]["value"]
    run_json(server.root, "curate", "pull")
    assert review_state(place).pairs["pair-022"].outcome == "open"
    write_pairs(place.pairs, pairs)
    assert run_json(server.root, "curate", "push")["changed"] == ["pair-022"]


def test_push_of_a_changed_pair_keeps_answers_nobody_had_pulled_yet(server: Server) -> None:
    place, ben = Workspace(server.root), Person(server, "ben")
    record = next(one for one in ben.queue() if number_of(one) == 22)
    ben.submit([(record["id"], {**accept(22), "decision": "reject", "why": "seen once"})])
    pairs = read_pairs(place.pairs)
    write_pairs(place.pairs, [o.model_copy(update={"question": "Other?"}) if o.id == "pair-022" else o for o in pairs])
    run_json(server.root, "curate", "push")
    assert Log(place).latest["review", "pair-022", "ben"].answers["why"] == "seen once"
    write_pairs(place.pairs, pairs)
    run_json(server.root, "curate", "push")


def test_two_people_push_at_once(server: Server, tmp_path: Path) -> None:
    key = read_credentials(server.root / ".argilla").api_key
    environment = {**os.environ, "ARGILLA_API_URL": server.url, "ARGILLA_API_KEY": key}
    processes = []
    for number in range(2):
        root = make_workspace(tmp_path / f"clone-{number}", pairs=N)
        command = [sys.executable, "-m", "tutelage", "-C", str(root), "curate", "push", "--dataset", "both", "--json"]
        options = ["--annotator", "nina", "--team", "both"]
        processes.append(
            subprocess.Popen([*command, *options], env=environment, cwd=ROOT, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )  # fmt: skip
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    with client(server) as owner:
        board = boards.open_board(owner, boards.find_team(owner, "both") or "", "both", adjudication=False)
        assert board is not None
        records = [one for page in owner.records(board.id) for one in page]
    assert sorted(one["external_id"] for one in records) == [f"pair-{n:03}" for n in range(N)]


def test_messages(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revoked key, a server that is away, a dataset of somebody else's: one message each, exit code 1."""

    def message(*arguments: str) -> str:
        done = CliRunner().invoke(tutelage.main, ["-C", str(server.root), "curate", *arguments])
        assert done.exit_code == 1
        assert "Traceback" not in done.output
        return done.stderr

    with client(server) as owner:
        team = boards.find_team(owner, "support-answers")
        owner.request("POST", "/datasets", body={"name": "foreign", "workspace_id": team})
    assert "something else than tutelage" in message("push", "--dataset", "foreign")
    monkeypatch.setenv("ARGILLA_API_KEY", "revoked-key")
    for command in ("push", "pull"):
        said = message(command, "--api-url", server.url)
        assert "API key is not accepted" in said
        assert "revoked-key" not in said
    monkeypatch.setattr(Client, "__init__", impatient)
    assert "does not answer" in message("pull", "--api-url", "http://127.0.0.1:9")


def test_server_ends_with_its_command_however_that_ends(tmp_path: Path) -> None:
    """kill -9 of `curate serve` leaves no server behind; data and users are there at the next start."""
    server = Server(make_workspace(tmp_path / "w", pairs=3))
    server.start()
    run_json(server.root, "curate", "push", *PEOPLE)
    anna = Person(server, "anna")
    anna.submit([(record["id"], accept(number_of(record))) for record in anna.queue()])
    pid = server.server_pid()
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists(), "the server has ended with its command"
    server.start()
    assert len(Person(server, "anna").queue("submitted")) == 3
    second = CliRunner().invoke(
        tutelage.main, ["-C", str(server.root), "curate", "serve", "--port", str(server.port + 1)]
    )
    assert second.exit_code == 1
    assert "served from here already" in second.stderr
    secrets = read_credentials(server.root / ".argilla")
    logs = "".join(path.read_text() for path in (server.root / ".argilla").glob("server.log*"))
    assert not any(secret in logs for secret in secrets[1:])
    print(f"ready after {server.ready_seconds} s, Ctrl-C took {server.stop():.2f} s")
