"""Argilla on this machine: secrets, environment, connection, and the client's behaviour when the server misbehaves."""

from __future__ import annotations

import html
import itertools
import json
import re
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate import layout
from curate.argilla import credentials, environment
from curate.argilla.boards import Board, check_layout
from curate.argilla.client import PAGE, Client, Conflict, Missing, encode_records
from curate.argilla.connection import connect
from curate.argilla.embedded.fulltext import Clause, Term, field_texts, parse_query
from curate.argilla.server import Options, check_options
from curate.behaviour import Behaviour
from curate.errors import ReviewError, ServerError, TutelageError
from curate.pairs import make_pair
from curate.review import renew, send
from curate.review_log import Log
from curate.workspace import Workspace

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, patience: float = 5.0) -> tuple[Client, list[float]]:
    """A client of a server that is one function, and the pauses it makes."""
    pauses: list[float] = []
    made = Client(
        "http://argilla", "key", transport=httpx.MockTransport(handler), patience=patience, sleep=pauses.append
    )
    return made, pauses


def test_client_waits_for_a_server_that_restarts() -> None:
    answers = iter([503, 502, 500, 200])

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["X-Argilla-Api-Key"] == "key"
        return httpx.Response(next(answers), json={"items": []})

    made, pauses = client(handler)
    assert made.items("/users") == []
    assert pauses == [0.2, 0.4, 0.8]


@pytest.mark.parametrize(
    "trouble", [httpx.ConnectError("refused"), httpx.ReadTimeout("timed out"), httpx.RemoteProtocolError("hung up")]
)
def test_client_gives_up_with_one_clear_message(trouble: Exception) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise trouble

    made, _ = client(handler, patience=0.0)
    with pytest.raises(ReviewError, match="does not answer") as caught:
        made.get("/me")
    assert "goes on where it stopped" in str(caught.value)


@pytest.mark.parametrize(("status", "words"), [(401, "the API key is not accepted"), (403, "may not do that")])
def test_revoked_key_is_not_tried_again(status: int, words: str) -> None:
    made, pauses = client(lambda request: httpx.Response(status, json={"detail": "no"}))
    with pytest.raises(ReviewError, match=words) as caught:
        made.get("/me")
    assert "ARGILLA_API_KEY" in str(caught.value)
    assert "key" not in str(caught.value).replace("API key", "").replace("ARGILLA_API_KEY", "").replace("the key", "")
    assert pauses == []


def test_page_that_is_no_argilla_is_named() -> None:
    made, _ = client(lambda request: httpx.Response(200, text="<html>"))
    with pytest.raises(ReviewError, match="is no Argilla"):
        made.get("/me")


def test_two_who_make_the_same_thing_at_once() -> None:
    made, _ = client(lambda request: httpx.Response(409, json={"detail": "name is taken"}))
    assert made.create("/workspaces", {"name": "t"}) is None
    with pytest.raises(Conflict):
        made.request("POST", "/workspaces", body={})
    gone, _ = client(lambda request: httpx.Response(404, json={"detail": "gone"}))
    with pytest.raises(Missing):
        gone.get("/records/1")


def test_upsert_that_met_another_one_is_repeated() -> None:
    answers = iter([409, 200])
    made, _ = client(lambda request: httpx.Response(next(answers), json={"items": []}))
    made.upsert_records("d", encode_records([{"external_id": "a"}]))


def test_half_of_a_surrogate_pair_is_sent_as_a_question_mark() -> None:
    assert json.loads(encode_records([{"fields": {"q": "a\ud800b"}}])) == {"items": [{"fields": {"q": "a?b"}}]}


def pages_sent(handler: Handler, records: Iterable[dict[str, Any]]) -> list[int]:
    """Send the records; how many were reported as sent, report by report."""
    made, _ = client(handler)
    reported: list[int] = []
    send(made, Board("d", "corrected"), records, 0, lambda what, done, total: reported.append(done))
    return reported


def test_two_pages_are_on_their_way_at_once_and_no_more_are_made() -> None:
    both, made = threading.Barrier(2), itertools.count()
    most: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        both.wait(10)  # broken unless another request is there too
        most.append(len(json.loads(request.content)["items"]))
        return httpx.Response(200, json={"items": []})

    def records() -> Iterator[dict[str, Any]]:
        for number in range(4 * PAGE):
            assert next(made) <= (len(most) + 3) * PAGE
            yield {"external_id": f"r{number}"}

    assert pages_sent(handler, records()) == [0, PAGE, 2 * PAGE, 3 * PAGE, 4 * PAGE]
    assert most == [PAGE] * 4


def test_error_of_one_page_comes_out_and_ends_the_sending() -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content)["items"][0]["external_id"])
        return httpx.Response(422, json={"detail": "no such field"})

    with pytest.raises(ReviewError, match="no such field"):
        pages_sent(handler, ({"external_id": f"r{number}"} for number in range(9 * PAGE)))
    assert len(asked) <= 3


def test_validation_errors_say_which_field() -> None:
    detail = {"code": "x", "params": {"errors": [{"loc": ["body", "items"], "msg": "Field required"}]}}
    made, _ = client(lambda request: httpx.Response(422, json={"detail": detail}))
    with pytest.raises(ReviewError, match=r"items.*Field required"):
        made.get("/me")


def test_records_are_read_to_the_last_page() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        offset, limit = (int(request.url.params[name]) for name in ("offset", "limit"))
        return httpx.Response(200, json={"items": [{"n": n} for n in range(offset, min(offset + limit, 600))]})

    made, _ = client(handler)
    assert [one["n"] for page in made.records("d") for one in page] == list(range(600))


def board(**marks: Any) -> Callable[[httpx.Request], httpx.Response]:
    def handler(request: httpx.Request) -> httpx.Response:
        parts = layout.fields(False) if request.url.path.endswith("fields") else layout.questions(is_json=True)
        return httpx.Response(200, json={"items": parts})

    return handler


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"tutelage": {"layout": 99}}, "layout 99 of tutelage"),
        ({}, "something else than tutelage"),
        (None, "something"),
    ],
)
def test_dataset_of_another_version_is_refused(metadata: Any, words: str) -> None:
    made, _ = client(board())
    with pytest.raises(ReviewError, match=words) as caught:
        check_layout(made, {"id": "d", "name": "n", "metadata": metadata}, adjudication=False)
    assert "--dataset" in str(caught.value)
    check_layout(
        made, {"id": "d", "name": "n", "metadata": {"tutelage": {"layout": layout.LAYOUT}}}, adjudication=False
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    home = credentials.private_directory(tmp_path / "home")
    made = credentials.ensure_credentials(home)
    assert (mode(home), mode(home / "credentials.json")) == (0o700, 0o600)
    assert made == credentials.ensure_credentials(home)
    assert len({made.password, made.api_key, made.secret_key}) == 3
    assert min(map(len, made[1:])) >= 16
    assert made != credentials.ensure_credentials(credentials.private_directory(tmp_path / "other"))
    (home / "credentials.json").chmod(0o644)
    credentials.read_credentials(home)
    assert mode(home / "credentials.json") == 0o600
    assert (home / ".gitignore").read_text() == "*\n"


def test_damaged_credentials_are_named(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(ServerError, match="cannot be read"):
        credentials.read_credentials(tmp_path)


def test_connection_is_the_one_named_else_the_one_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARGILLA_API_URL", "ARGILLA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ReviewError, match="no Argilla is served"):
        connect(tmp_path)
    credentials.ensure_credentials(tmp_path)
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 1}))
    assert connect(tmp_path).url == "http://127.0.0.1:1"
    monkeypatch.setenv("ARGILLA_API_URL", "https://from.environment/")
    with pytest.raises(ReviewError, match="no API key"):
        connect(tmp_path)
    monkeypatch.setenv("ARGILLA_API_KEY", "k")
    assert connect(tmp_path).url == "https://from.environment"
    assert connect(tmp_path, "https://named").url == "https://named"


@pytest.mark.parametrize("key", ["secret\nOTHER=1", "sécret", "two words"])
def test_key_that_no_header_can_hold_is_refused_unseen(key: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ARGILLA_API_KEY", key)
    with pytest.raises(TutelageError, match="ARGILLA_API_KEY is no API key") as caught:
        connect(tmp_path, "http://argilla.test")
    assert key not in str(caught.value)
    monkeypatch.setenv("ARGILLA_API_KEY", " owner.key\n")
    with connect(tmp_path, "http://argilla.test") as client:
        assert client.url == "http://argilla.test"


def test_a_password_in_the_address_is_sent_and_never_shown(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ARGILLA_API_KEY", "owner.key")
    sent: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: sent.append(request) or httpx.Response(401))
    client = Client("http://anna:hunter2@argilla.test/", "owner.key", transport=transport)
    with pytest.raises(ReviewError, match=r"http://anna:…@argilla\.test") as caught:
        client.get("/me")
    assert "hunter2" not in str(caught.value)
    assert sent[0].headers["Authorization"] == "Basic YW5uYTpodW50ZXIy"  # anna:hunter2


@pytest.mark.parametrize("url", ["http://host:69x0", "http://[::1"])
def test_address_that_is_none_is_one_message(url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ARGILLA_API_KEY", "owner.key")
    with pytest.raises(ReviewError, match="is no URL"):
        connect(tmp_path, url)


def test_every_requirement_is_pinned_and_hashed() -> None:
    lines = environment.REQUIREMENTS.read_text().splitlines()
    named = [line for line in lines if re.match(r"[A-Za-z0-9]", line)]
    assert len(named) == len(environment.pinned()) > 80
    assert "argilla-server==2.8.0" in environment.pinned()
    for index, line in enumerate(lines):
        if re.match(r"[A-Za-z0-9]", line):
            assert line.endswith("\\")
            assert lines[index + 1].strip().startswith("--hash=sha256:")


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0)])
def test_other_pythons_are_refused(version: tuple[int, int, int], tmp_path: Path, monkeypatch: Any) -> None:
    class Version(tuple):  # type: ignore[type-arg]
        major, minor = version[:2]

    monkeypatch.setattr(sys, "version_info", Version(version))
    with pytest.raises(ServerError, match=r"Python 3.11 to 3.13, and this is 3\."):
        environment.prepare(tmp_path, lambda reached: None)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("WARNING: Retrying after connection broken by 'NewConnectionError('", "package index does not answer"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "its hash differs"),
        ("line\nERROR: No space left on device", "No space left"),
    ],
)
def test_failed_installation_says_why(output: str, words: str) -> None:
    assert words in str(environment.install_error(output))


@pytest.mark.slow
def test_no_network_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip itself, with an index that nobody answers at; nothing is taken for ready afterwards."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    for name, value in {"PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServerError, match="does not answer"):
        environment.prepare(tmp_path, lambda reached: None)
    assert not environment.is_ready(tmp_path)


def test_options_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerError, match="cannot listen"):
            check_options(Options(tmp_path, port=taken.getsockname()[1]))
    with pytest.raises(ServerError, match="neither PostgreSQL nor SQLite") as caught:
        check_options(Options(tmp_path, port=0, database="mysql://me:secret@host/db"))
    assert "secret" not in str(caught.value)
    with pytest.raises(ServerError, match="no Redis URL"):
        check_options(Options(tmp_path, port=0, redis="localhost"))


@pytest.mark.parametrize(
    ("query", "clauses"),
    [
        ("red shoes", [Clause(False, (Term(("red",)),)), Clause(False, (Term(("shoes",)),))]),
        ("red | blue", [Clause(False, (Term(("red",)), Term(("blue",))))]),
        ("-red", [Clause(True, (Term(("red",)),))]),
        ('"red shoes"', [Clause(False, (Term(("red", "shoes")),))]),
        ('-"red shoes"', [Clause(True, (Term(("red", "shoes")),))]),
        ("sho*", [Clause(False, (Term(("sho",), prefix=True),))]),
        ("mail@example.com", [Clause(False, (Term(("mail", "example", "com")),))]),
        ('| * - "', []),
    ],
)
def test_queries_are_read_as_elasticsearch_does(query: str, clauses: list[Clause]) -> None:
    assert parse_query(query) == clauses


@given(st.text())
def test_no_query_is_an_error(query: str) -> None:
    for clause in parse_query(query):
        assert clause.terms
        assert all(re.fullmatch(r"\w+", word) for term in clause.terms for word in term.words)


def test_texts_of_a_chat_leave_the_roles_out() -> None:
    assert field_texts([{"role": "user", "content": "hi"}]) == ["hi"]
    assert field_texts({"a": ["x", {"b": "y"}], "n": 3, "none": None}) == ["x", "y", "3"]


def test_names_of_questions_do_not_meet_argillas_own() -> None:
    for question in layout.questions(is_json=True):
        assert not re.search("(score|agent|type|response)$", question["name"])


def test_reviewer_of_plain_text_is_not_told_of_quotation_marks_and_brackets() -> None:
    said = {question["name"]: str(question) for question in layout.questions(is_json=False)}
    assert "plain text" in said[layout.CORRECTED]
    assert not re.search("quotation marks|brackets", " ".join(said.values()))
    form = {question["name"]: str(question) for question in layout.questions(is_json=True)}
    assert "quotation marks" in form[layout.CORRECTED]
    assert {name for name in said if said[name] != form[name]} == {layout.CORRECTED}


def test_guidelines_fit_and_tell_the_behaviours_rules() -> None:
    behaviour = Behaviour.model_validate(
        {
            "name": "support",
            "system": "Answer from the passages only.",
            "prompt": "{{ question }}",
            "output": {"format": "json", "schema": "s.json"},
            "abstain": {"where": "/status", "equals": "unknown", "output": {"status": "unknown", "answer": None}},
            "answer": {"at": "/answer"},
            "vocabulary": {"prefer": {"refund": ["money back"]}},
            "schema_document": {
                "type": "object",
                "properties": {"status": {"enum": ["answered", "unknown"]}, "answer": {"description": "In short."}},
            },
        }
    )
    text = layout.guidelines(behaviour, adjudication=False)
    for words in (
        "Answer from the passages only.",
        '"answered", ',
        "In short.",
        "**refund**, not money back",
        "Submit",
    ):
        assert words.replace('"answered", ', '`"answered"`') in text


@pytest.mark.parametrize("letter", ["x", "<", "&", "\n- "])
def test_guidelines_keep_what_reviewers_copy_from_however_long_the_system_text_is(letter: str) -> None:
    written = {"name": "n", "prompt": "p", "output": {"format": "json"}, "system": "<passages> " + letter * 30_000}
    abstain = {"where": "/status", "equals": "unknown", "output": {"status": "unknown"}}
    behaviour = Behaviour.model_validate({**written, "abstain": abstain})
    for adjudication in (False, True):
        text = layout.guidelines(behaviour, adjudication, {"status": "answered"})
        assert 9_900 < len(text) <= 10_000
        told = text[text.index("<blockquote>") + 12 : text.index("</blockquote>")]
        assert html.unescape(told.replace("<br>", "\n")).startswith(f"<passages> {letter}".rstrip())
        assert "<" not in told.replace("<br>", "")
        assert not re.search("&(?!(lt|gt|amp);)", told)
        for output in ('{\n  "status": "answered"\n}', '{\n  "status": "unknown"\n}'):
            assert f"```\n{output}\n```" in text


@given(st.text(), st.text(min_size=1))
def test_passages_are_shown_as_they_are(text: str, name: str) -> None:
    """Nothing in a passage becomes markup, and no blank line ends the block of HTML it stands in."""
    pair = make_pair({"id": "a", "question": "q", "passages": [{"id": name, "text": text}], "output": "x"}, "t")
    shown = layout.render_passages(pair.passages)
    inner = re.sub(r"</?(p|strong|br|hr)>", "", shown)
    assert "<" not in inner
    assert "\n\n" not in shown


def test_code_and_tables_keep_their_shape() -> None:
    """HTML makes one space of several; an entity by name would be a word that the search finds everywhere."""
    code = "\n  def f(x):\n\treturn <x>\n\nsize  S   M\nplain words\n"
    shown = "__def f(x):<br>____return &lt;x&gt;<br><br>size_ S__ M<br>plain words".replace("_", "\u00a0")
    written = {"name": "n", "prompt": "p", "output": {"format": "text"}, "system": code}
    behaviour = Behaviour.model_validate(written)
    pair = make_pair(
        {"id": "a", "question": "q", "passages": [{"id": "p1", "text": code, "source": "s"}], "output": code}, "t"
    )
    fields = layout.record(pair, behaviour, {})["fields"]
    for text in (fields[layout.PASSAGES], fields[layout.PROPOSED], layout.guidelines(behaviour, adjudication=False)):
        assert shown in text
        assert "nbsp" not in text


def test_a_changed_record_can_hardly_be_answered_between_taking_off_its_answers_and_its_new_content(
    tmp_path: Path,
) -> None:
    seen: list[set[str]] = [set()]  # of each page that is sent: whose answers were taken off since the last one

    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            seen[-1].add(request.url.path.rsplit("/", 1)[1])
            return httpx.Response(200, json={"responses": []})
        assert {one["external_id"] for one in json.loads(request.content)["items"]} == seen[-1]
        seen.append(set())
        return httpx.Response(200, json={})

    made, _ = client(handle)
    changed = [(str(number), {"external_id": str(number)}) for number in range(50)]
    renew(made, Log(Workspace(tmp_path)), {}, Board("b", "q"), changed, "review", lambda *_: None)
    assert sorted(map(len, seen)) == [0, 2, 16, 16, 16]


@given(st.text())
def test_questions_and_conversations_are_shown_as_they_are(text: str) -> None:
    """Argilla puts a field without Markdown into its page as HTML: a script in a log would run as the reviewer."""
    written = f"<script>steal()</script> List<String> &lt; {text}"
    turn = {"role": "user", "content": written}
    pair = make_pair({"id": "a", "question": written, "history": [turn], "output": "x"}, "t")
    behaviour = Behaviour.model_validate({"name": "n", "prompt": "p", "output": {"format": "text"}})
    shown = layout.record(pair, behaviour, {})["fields"]
    for said in (shown[layout.QUESTION], shown[layout.HISTORY][0]["content"]):
        assert "<" not in said
        assert html.unescape(said) == written


def test_keys_of_an_output_are_not_broken_beside_a_long_value() -> None:
    behaviour = Behaviour.model_validate({"name": "n", "prompt": "p", "output": {"format": "json"}})
    assert "<td nowrap><strong>answer</strong>" in layout.render_output({"answer": "word " * 200}, behaviour)
