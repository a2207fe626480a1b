"""The embedded search engine inside the real argilla-server: each answer counted by hand, on either database."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from serving_models import free_port

from curate.argilla.client import Client, encode_records
from curate.argilla.environment import cache_directory, prepare
from curate.argilla.server import Options, serving

pytestmark = pytest.mark.slow

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
N = 120
Json = dict[str, Any]


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of our own, where the machine has one; its servers refuse to run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    pg_ctl = str(found[-1]) if found else shutil.which("pg_ctl")
    if pg_ctl is None:
        pytest.skip("no PostgreSQL on this machine")
    directory, port = tmp_path_factory.mktemp("postgresql"), free_port()
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres")
        for parent in directory.parents[:3]:  # pytest's own, which two workers nest one deeper
            if parent != Path(tempfile.gettempdir()):
                parent.chmod(0o755)
        as_user = ["runuser", "-u", "postgres", "--"]
    data = directory / "data"
    initialise = ["initdb", "-D", str(data), "-o", "-A trust -U argilla"]
    start = [
        "start",
        "-w",
        "-D",
        str(data),
        "-l",
        str(directory / "log"),
        "-o",
        f"-p {port} -k {directory} -h 127.0.0.1",
    ]
    for arguments in (initialise, start):
        subprocess.run([*as_user, pg_ctl, *arguments], check=True, capture_output=True, cwd=directory)
    create = [str(Path(pg_ctl).with_name("createdb")), "-h", "127.0.0.1", "-p", str(port), "-U", "argilla", "argilla"]
    subprocess.run(create, check=True, capture_output=True)
    yield f"postgresql+asyncpg://argilla@127.0.0.1:{port}/argilla"
    subprocess.run([*as_user, pg_ctl, "stop", "-m", "immediate", "-D", str(data)], capture_output=True, cwd=directory)


def records() -> list[Json]:
    draw = random.Random(5)
    return [
        {
            "external_id": f"r{n:03}",
            "fields": {
                "prompt": f"Question {n} about {draw.choice(WORDS)} and {draw.choice(WORDS)}, number n{n}.",
                "chat": [{"role": "user", "content": f"Tell me of {draw.choice(WORDS)}"}],
            },
            "metadata": {
                "source": draw.choice(["web", "book", "chat"]),
                "tags": draw.sample(["x", "y", "z"], 2),
                "n": n,
                "f": n / 7,
            },
            "vectors": {"v": [draw.gauss(0, 1) for _ in range(6)]},
            "quality": draw.choice(["good", "bad"]),
            "stars": draw.randint(1, 5),
        }
        for n in range(N)
    ]


class Board:
    """A dataset of 120 records on a served Argilla, and ways to ask it."""

    def __init__(self, client: Client) -> None:
        self.client, self.records, self.name = client, records(), f"team-{uuid4().hex[:8]}"
        team = client.request("POST", "/workspaces", body={"name": self.name})["id"]
        body = {"name": "d", "workspace_id": team, "distribution": {"strategy": "overlap", "min_submitted": 2}}
        self.id = client.request("POST", "/datasets", body=body)["id"]
        self.team, self.questions = team, self._lay_out()
        client.request("PUT", f"/datasets/{self.id}/publish")
        self.upsert(self.records)
        self.server_ids = {r["external_id"]: r["id"] for page in client.records(self.id) for r in page}

    def _lay_out(self) -> dict[str, str]:
        chat = {"name": "chat", "title": "c", "settings": {"type": "chat"}}
        for field in ({"name": "prompt", "title": "p", "required": True, "settings": {"type": "text"}}, chat):
            self.client.request("POST", f"/datasets/{self.id}/fields", body=field)
        options = [{"value": value, "text": value} for value in ("good", "bad")]
        label = {"type": "label_selection", "options": options}
        rating = {"type": "rating", "options": [{"value": n} for n in range(1, 6)]}
        made = {}
        for name, settings in (("quality", label), ("stars", rating)):
            body = {"name": name, "title": name, "required": True, "settings": settings}
            made[name] = self.client.request("POST", f"/datasets/{self.id}/questions", body=body)["id"]
        for name, kind in (("source", "terms"), ("tags", "terms"), ("n", "integer"), ("f", "float")):
            body = {"name": name, "title": name, "settings": {"type": kind}, "visible_for_annotators": True}
            self.client.request("POST", f"/datasets/{self.id}/metadata-properties", body=body)
        vector = {"name": "v", "title": "v", "dimensions": 6}
        self.client.request("POST", f"/datasets/{self.id}/vectors-settings", body=vector)
        return made

    def upsert(self, items: list[Json]) -> None:
        sent = []
        for one in items:
            plain = {key: value for key, value in one.items() if key not in ("quality", "stars")}
            suggestions = [
                {"question_id": self.questions[name], "value": one[name], "score": one["stars"] / 5, "agent": "judge"}
                for name in ("quality", "stars")
            ]
            sent.append({**plain, "suggestions": suggestions})
        self.client.upsert_records(self.id, encode_records(sent))

    def search(self, http: Any = None, **query: Any) -> tuple[list[str], int]:
        """External ids in order, and the total."""
        parameters = {"limit": query.pop("limit", 200), "offset": query.pop("offset", 0)}
        mine = query.pop("mine", False)
        path = f"{'/me' if mine else ''}/datasets/{self.id}/records/search"
        if http is None:
            answer = self.client.request("POST", path, body=query, params=parameters)
        else:
            answer = http.post(path, json=query, params=parameters).raise_for_status().json()
        return [item["record"]["external_id"] for item in answer["items"]], answer["total"]

    def login(self, name: str) -> httpx.Client:
        unique = f"{name}-{self.name}"
        body = {"first_name": name, "username": unique, "password": "password123", "role": "annotator"}
        user = self.client.request("POST", "/users", body=body)
        self.client.request("POST", f"/workspaces/{self.team}/users", body={"user_id": user["id"]})
        http = httpx.Client(base_url=f"{self.client.url}/api/v1", timeout=60, trust_env=False)
        token = http.post("/token", data={"username": unique, "password": "password123"}).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        return http

    def where(self, test: Callable[[Json], bool]) -> set[str]:
        return {one["external_id"] for one in self.records if test(one)}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    database = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    options = Options(tmp_path_factory.mktemp("home"), port=free_port(), database=database)
    python = prepare(cache_directory(), lambda reached: None)
    with serving(python, options) as (_, credentials), Client(options.url, credentials.api_key) as connected:
        yield connected


@pytest.fixture(scope="module")
def board(client: Client) -> Board:
    """One for all the tests that only ask."""
    return Board(client)


@pytest.fixture
def own_board(client: Client) -> Board:
    """One for a test that changes it."""
    return Board(client)


def terms(entity: str, values: list[str], **scope: str) -> Json:
    return {"type": "terms", "scope": {"entity": entity, **scope}, "values": values}


def between(entity: str, ge: float | None, le: float | None, **scope: str) -> Json:
    bounds = {name: value for name, value in (("ge", ge), ("le", le)) if value is not None}
    return {"type": "range", "scope": {"entity": entity, **scope}, **bounds}


def words_of(one: Json) -> list[str]:
    text = one["fields"]["prompt"] + " " + one["fields"]["chat"][0]["content"]
    return text.replace(",", "").replace(".", "").lower().split()


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("alpha", lambda words: "alpha" in words),
        ("Alpha BETA", lambda words: {"alpha", "beta"} <= set(words)),
        ("alpha | beta", lambda words: bool({"alpha", "beta"} & set(words))),
        ("alpha -beta", lambda words: "alpha" in words and "beta" not in words),
        ("-alpha", lambda words: "alpha" not in words),
        ("gam*", lambda words: "gamma" in words),
        ('"tell me of eta"', lambda words: " tell me of eta" in " " + " ".join(words)),
        ("n17", lambda words: "n17" in words),
        ("user", lambda words: False),
        ("%' OR 1=1 --", lambda words: False),
    ],
)
def test_text(board: Board, query: str, holds: Callable[[list[str]], bool]) -> None:
    found, total = board.search(query={"text": {"q": query}})
    assert set(found) == board.where(lambda one: holds(words_of(one)))
    assert total == len(found)


def test_text_of_one_field(board: Board) -> None:
    found, _ = board.search(query={"text": {"q": "alpha", "field": "chat"}})
    assert set(found) == board.where(lambda one: one["fields"]["chat"][0]["content"].endswith("alpha"))


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ([terms("metadata", ["web"], metadata_property="source")], lambda o: o["metadata"]["source"] == "web"),
        ([terms("metadata", ["x"], metadata_property="tags")], lambda o: "x" in o["metadata"]["tags"]),
        ([between("metadata", 10, 19, metadata_property="n")], lambda o: 10 <= o["metadata"]["n"] <= 19),
        ([between("metadata", 9.5, None, metadata_property="f")], lambda o: o["metadata"]["f"] >= 9.5),
        ([terms("suggestion", ["good"], question="quality", property="value")], lambda o: o["quality"] == "good"),
        ([terms("suggestion", ["4", "5"], question="stars", property="value")], lambda o: o["stars"] >= 4),
        ([between("suggestion", 2, 3, question="stars", property="value")], lambda o: 2 <= o["stars"] <= 3),
        ([between("suggestion", 0.7, None, question="quality", property="score")], lambda o: o["stars"] >= 4),
        ([terms("suggestion", ["judge"], question="quality", property="agent")], lambda o: True),
        ([terms("suggestion", ["other"], question="quality", property="agent")], lambda o: False),
        ([terms("record", ["pending"], property="status")], lambda o: True),
        (
            [
                terms("metadata", ["web", "book"], metadata_property="source"),
                terms("suggestion", ["bad"], question="quality", property="value"),
            ],
            lambda o: o["metadata"]["source"] != "chat" and o["quality"] == "bad",
        ),
    ],
)
def test_filters(board: Board, filters: list[Json], holds: Callable[[Json], bool]) -> None:
    found, total = board.search(filters={"and": filters})
    assert set(found) == board.where(holds)
    assert total == len(found)


def test_filter_by_id_and_by_time(board: Board) -> None:
    ids = [board.server_ids["r007"], board.server_ids["r009"]]
    assert set(board.search(filters={"and": [terms("record", ids, property="id")]})[0]) == {"r007", "r009"}
    before = {"type": "range", "scope": {"entity": "record", "property": "inserted_at"}, "le": "2000-01-01T00:00:00"}
    assert board.search(filters={"and": [before]}) == ([], 0)


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ({"entity": "metadata", "metadata_property": "n"}, lambda o: o["metadata"]["n"]),
        ({"entity": "metadata", "metadata_property": "source"}, lambda o: o["metadata"]["source"]),
        ({"entity": "suggestion", "question": "stars", "property": "value"}, lambda o: o["stars"]),
        ({"entity": "suggestion", "question": "quality", "property": "score"}, lambda o: o["stars"]),
    ],
)
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_sorts(board: Board, scope: Json, key: Callable[[Json], Any], order: str) -> None:
    found, _ = board.search(sort=[{"scope": scope, "order": order}])
    by_id = {one["external_id"]: key(one) for one in board.records}
    values = [by_id[name] for name in found]
    assert len(values) == N
    assert values == sorted(values, reverse=order == "desc")


def test_pages_hold_everything_once(board: Board) -> None:
    pages = [board.search(limit=50, offset=offset)[0] for offset in range(0, 150, 50)]
    assert sorted(name for page in pages for name in page) == sorted(board.server_ids)


def test_similarity(board: Board) -> None:
    matrix = np.array([one["vectors"]["v"] for one in board.records])
    wanted = matrix[3]
    cosine = matrix @ wanted / np.linalg.norm(matrix, axis=1) / np.linalg.norm(wanted)
    nearest = [board.records[i]["external_id"] for i in np.argsort(-cosine)]
    query = {"name": "v", "value": list(wanted)}
    assert board.search(query={"vector": query}, limit=10)[0] == nearest[:10]
    by_record = {"name": "v", "record_id": board.server_ids["r003"]}
    assert board.search(query={"vector": by_record}, limit=10)[0] == nearest[1:11]
    assert board.search(query={"vector": {**query, "order": "least_similar"}}, limit=5)[0] == nearest[:-6:-1]
    web = [terms("metadata", ["web"], metadata_property="source")]
    some = board.where(lambda one: one["metadata"]["source"] == "web")
    found = board.search(query={"vector": query}, filters={"and": web}, limit=5)[0]
    assert found == [name for name in nearest if name in some][:5]


def test_metrics_of_metadata(board: Board) -> None:
    listed = board.client.items(f"/me/datasets/{board.id}/metadata-properties")
    metrics = {one["name"]: board.client.get(f"/metadata-properties/{one['id']}/metrics") for one in listed}
    counts = {one["term"]: one["count"] for one in metrics["tags"]["values"]}
    assert counts == {tag: len(board.where(lambda o, t=tag: t in o["metadata"]["tags"])) for tag in "xyz"}
    assert (metrics["n"]["min"], metrics["n"]["max"]) == (0, N - 1)
    assert metrics["f"]["max"] == pytest.approx((N - 1) / 7)


def respond(board: Board, http: httpx.Client, number: int, status: str = "submitted", stars: int = 3) -> None:
    values = {"quality": {"value": "good"}, "stars": {"value": stars}}
    path = f"/records/{board.server_ids[f'r{number:03}']}/responses"
    http.post(path, json={"status": status, "values": values}).raise_for_status()


def completed(board: Board) -> set[str]:
    return set(board.search(filters={"and": [terms("record", ["completed"], property="status")]})[0])


def test_queue_of_each_reviewer(own_board: Board) -> None:
    """The queue by status and per user, what completes a record, progress, and responses as filters."""
    board, anna, ben = own_board, own_board.login("anna"), own_board.login("ben")
    pending = {"and": [terms("response", ["pending"], property="status")]}
    mine = board.search(anna, mine=True, filters=pending)
    other = board.search(ben, mine=True, filters=pending)
    assert set(mine[0]) == set(other[0]) == set(board.server_ids)
    assert mine[0] != other[0], "each reviewer meets the queue in an order of their own"
    assert mine == board.search(anna, mine=True, filters=pending), "and always in the same"

    for number in range(10):
        respond(board, anna, number, stars=1 + number % 5)
    for number in range(4):
        respond(board, ben, number, stars=5)
    respond(board, ben, 50, "draft")
    respond(board, ben, 51, "discarded")

    def count(http: httpx.Client, *statuses: str) -> int:
        return board.search(http, mine=True, filters={"and": [terms("response", list(statuses), property="status")]})[1]

    statuses = ("pending", "submitted", "draft", "discarded")
    assert [count(anna, one) for one in statuses] == [N - 10, 10, 0, 0]
    assert [count(ben, one) for one in statuses] == [N - 6, 4, 1, 1]
    assert count(ben, "pending", "draft") == N - 5
    both = [terms("response", ["pending"], property="status"), terms("record", ["pending"], property="status")]
    assert board.search(ben, mine=True, filters={"and": both})[1] == N - 6
    assert completed(board) == {f"r{n:03}" for n in range(4)}
    progress = board.client.get(f"/datasets/{board.id}/progress")
    assert (progress["total"], progress["completed"], progress["pending"]) == (N, 4, N - 4)
    assert anna.get(f"/me/datasets/{board.id}/metrics").json()["responses"]["submitted"] == 10
    five = board.search(filters={"and": [terms("response", ["5"], question="stars")]})[0]
    assert set(five) == {"r000", "r001", "r002", "r003", "r004", "r009"}
    scope = {"entity": "response", "question": "stars"}
    ordered = board.search(sort=[{"scope": scope, "order": "desc"}], limit=4)[0]
    assert set(ordered) == {"r003", "r002", "r004", "r009"}, "by the mean: 4.5, 4, 5, 5"


def test_changed_and_deleted_records_are_found_by_what_they_say_now(own_board: Board) -> None:
    board = own_board
    one = {**board.records[20], "fields": {"prompt": "zebra crossing", "chat": None}}
    board.upsert([one])
    assert board.search(query={"text": {"q": "zebra"}})[0] == ["r020"]
    assert "r020" not in board.search(query={"text": {"q": "n20"}})[0]
    board.client.request("DELETE", f"/records/{board.server_ids['r020']}")
    assert board.search(query={"text": {"q": "zebra"}}) == ([], 0)
    assert board.search()[1] == N - 1


def test_changing_the_overlap_changes_what_is_complete(own_board: Board) -> None:
    """argilla-server leaves this to a job queue; here the job runs in process."""
    board, anna = own_board, own_board.login("anna")
    for number in range(5):
        respond(board, anna, number)
    assert completed(board) == set()
    body = {"distribution": {"strategy": "overlap", "min_submitted": 1}}
    board.client.request("PATCH", f"/datasets/{board.id}", body=body)
    until = time.monotonic() + 30
    while len(now := completed(board)) < 5 and time.monotonic() < until:
        time.sleep(0.1)
    assert now == {f"r{n:03}" for n in range(5)}
