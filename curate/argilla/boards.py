"""What a round needs in Argilla before the first record: workspaces, people, datasets; makes what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from curate import layout
from curate.argilla.client import Client, Conflict, Json, Missing
from curate.argilla.credentials import new_password, private_directory, write_private
from curate.errors import ReviewError
from curate.files import parse_json


class Board(NamedTuple):
    """A dataset of ours in Argilla."""

    id: str
    corrected: str  # the id of the question whose suggestion is the proposed output


def find_team(client: Client, name: str) -> str | None:
    """The id of the Argilla workspace called `name`."""
    found = [one["id"] for one in client.items("/me/workspaces") if one["name"] == name]
    return str(found[0]) if found else None


def ensure_team(client: Client, name: str) -> str:
    """The Argilla workspace called `name`, made where there is none."""
    found = find_team(client, name)
    if found is None:
        client.create("/workspaces", {"name": name})
        found = find_team(client, name)
    if found is None:
        raise ReviewError(f"Argilla has a workspace {name!r} that this user is not in", fix="let its owner add you")
    return found


def ensure_people(client: Client, names: tuple[str, ...], team: str, passwords: Path) -> list[str]:
    """Make those users that are missing, as annotators, and put all of them into the team. Returns who was made.

    New passwords go to the file `passwords`, before the user is made: a crash must not leave one nobody knows.
    """
    if not names:
        return []
    users = {str(user["username"]): str(user["id"]) for user in client.items("/users")}
    made = []
    for name in dict.fromkeys(names):
        if name not in users:
            password = new_password()
            _keep_password(passwords, client.url, name, password)
            body = {"first_name": name, "username": name, "role": "annotator", "password": password}
            user = client.create("/users", body)
            if user is None:
                users = {str(one["username"]): str(one["id"]) for one in client.items("/users")}
            else:
                users[name] = str(user["id"])
                made.append(name)
        client.create(f"/workspaces/{team}/users", {"user_id": users[name]})
    return made


def _keep_password(path: Path, url: str, name: str, password: str) -> None:
    private_directory(path.parent)
    kept = parse_json(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept.setdefault(url, {})[name] = password
    write_private(path, json.dumps(kept, indent=2) + "\n")


def find_board(client: Client, team: str, name: str) -> Json | None:
    """The dataset called `name` in a workspace, as Argilla describes it."""
    listed = client.items("/me/datasets", workspace_id=team)
    return next((one for one in listed if one["name"] == name), None)


def open_board(client: Client, team: str, name: str, *, adjudication: bool) -> Board | None:
    """The dataset, if it is there and ready. Raises `ReviewError` where it is none of ours, or another version's."""
    found = find_board(client, team, name)
    if found is None or found["status"] != "ready":
        return None
    check_layout(client, found, adjudication)
    return _board(client, found)


def check_layout(client: Client, dataset: Json, adjudication: bool) -> None:
    """Raise `ReviewError` where a dataset was laid out by another version of this tool, or by something else."""
    marked = ((dataset.get("metadata") or {}).get("tutelage") or {}).get("layout")
    parts = [*layout.fields(adjudication), *layout.questions(is_json=True)]  # of any behaviour: only the words differ
    wanted = {one["name"]: one["settings"]["type"] for one in parts}
    there = [*client.items(f"/datasets/{dataset['id']}/fields"), *client.items(f"/datasets/{dataset['id']}/questions")]
    found = {str(one["name"]): str(one["settings"]["type"]) for one in there}
    if marked == layout.LAYOUT and wanted == found:
        return
    made_by = f"layout {marked} of tutelage" if marked is not None else "something else than tutelage"
    raise ReviewError(
        f"the dataset {dataset['name']!r} in Argilla was made by {made_by}; this version writes layout {layout.LAYOUT}",
        fix="push to a new one (--dataset NAME); pull what is in the old one with the version that made it",
    )


def ensure_board(
    client: Client,
    team: str,
    name: str,
    overlap: int,
    guidelines: str,
    *,
    is_json: bool,
    adjudication: bool = False,
) -> Board:
    """The dataset, made where it is missing, finished where a push was broken off, with its overlap as wanted."""
    found = find_board(client, team, name)
    if found is None:
        body = {
            "name": name,
            "workspace_id": team,
            "guidelines": guidelines,
            "allow_extra_metadata": True,
            "distribution": {"strategy": "overlap", "min_submitted": overlap},
            "metadata": {"tutelage": {"layout": layout.LAYOUT}},
        }
        client.create("/datasets", body)
        found = find_board(client, team, name)
        if found is None:
            raise ReviewError(f"Argilla has made no dataset {name!r}")
    if found["status"] != "ready":
        _finish(client, str(found["id"]), is_json, adjudication)
        found = client.get(f"/datasets/{found['id']}")
    check_layout(client, found, adjudication)
    _keep_current(client, found, overlap, guidelines)
    return _board(client, found)


def _board(client: Client, dataset: Json) -> Board:
    asked = client.items(f"/datasets/{dataset['id']}/questions")
    corrected = next(str(one["id"]) for one in asked if one["name"] == layout.CORRECTED)
    return Board(str(dataset["id"]), corrected)


def _finish(client: Client, dataset: str, is_json: bool, adjudication: bool) -> None:
    """Add what a draft lacks, in order, and publish it; another push may be doing the same."""
    parts = [
        (f"/datasets/{dataset}/fields", f"/datasets/{dataset}/fields", layout.fields(adjudication)),
        (f"/datasets/{dataset}/questions", f"/datasets/{dataset}/questions", layout.questions(is_json)),
        (
            f"/me/datasets/{dataset}/metadata-properties",
            f"/datasets/{dataset}/metadata-properties",
            layout.metadata_properties(),
        ),
    ]
    try:
        for listing, path, wanted in parts:
            there = {str(one["name"]) for one in client.items(listing)}
            for body in wanted:
                if body["name"] not in there:
                    client.create(path, body)
        client.request("PUT", f"/datasets/{dataset}/publish")
    except (Conflict, ReviewError) as error:
        if isinstance(error, Missing) or client.get(f"/datasets/{dataset}")["status"] != "ready":
            raise


def _keep_current(client: Client, dataset: Json, overlap: int, guidelines: str) -> None:
    change: Json = {}
    if dataset["distribution"]["min_submitted"] != overlap:
        change["distribution"] = {"strategy": "overlap", "min_submitted": overlap}
    if dataset.get("guidelines") != guidelines:
        change["guidelines"] = guidelines
    if change:
        client.request("PATCH", f"/datasets/{dataset['id']}", body=change)


def members(client: Client, team: str) -> list[Json]:
    """The users in an Argilla workspace."""
    return client.items(f"/workspaces/{team}/users")


def usernames(client: Client, teams: list[str]) -> dict[str, str]:
    """User id -> name, of everyone in the teams and of us."""
    people = [client.get("/me"), *(user for team in teams for user in members(client, team))]
    return {str(user["id"]): str(user["username"]) for user in people}
