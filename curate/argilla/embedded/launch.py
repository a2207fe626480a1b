"""argilla-server in one process. Reads its settings as one line of JSON from standard input, which it then watches:
when it closes, the server ends. Run by `curate/argilla/server.py` with the server environment's own Python.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TypedDict

from .in_process import end_with_parent, reuse_type_adapters, run_jobs_in_process, skip_unheard_events, use_memory_redis


class Settings(TypedDict):
    """What the launcher is told. The secrets come this way and not as arguments, which every process can read."""

    home: str
    host: str
    port: int
    database: str | None
    redis: str | None
    username: str
    password: str
    api_key: str
    secret_key: str


def main() -> None:
    """Prepare the database, then serve until told to stop."""
    settings: Settings = json.loads(sys.stdin.readline())
    end_with_parent()
    os.environ.update(_environment(settings))
    if settings["redis"] is None:
        use_memory_redis()

    from argilla_server.database import async_engine
    from argilla_server.settings import settings as server_settings

    if server_settings.database_is_sqlite:
        from . import sqlite

        sqlite.listen()
    _migrate()

    async def prepare() -> None:
        await _ensure_owner(settings)
        await async_engine.dispose()  # uvicorn runs a loop of its own

    asyncio.run(prepare())
    _serve(settings)


def _environment(settings: Settings) -> dict[str, str]:
    given = {
        "ARGILLA_HOME_PATH": str(Path(settings["home"]).absolute()),
        "ARGILLA_SEARCH_ENGINE": "embedded",
        "ARGILLA_AUTH_SECRET_KEY": settings["secret_key"],
        "ARGILLA_CORS_ORIGINS": "[]",  # its own pages need none, and no other site shall ask
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }
    if settings["database"]:
        given["ARGILLA_DATABASE_URL"] = settings["database"]
    if settings["redis"]:
        given["ARGILLA_REDIS_URL"] = settings["redis"]
    return given


def _migrate() -> None:
    """Bring the database's tables to this version; as a function, since the server's command breaks with click 8.2."""
    from alembic import command
    from alembic.config import Config
    from argilla_server.database import ALEMBIC_CONFIG_FILE

    command.upgrade(Config(ALEMBIC_CONFIG_FILE), "head")


async def _ensure_owner(settings: Settings) -> None:
    """The owner exists and has the password and key of the credentials file; the server's own helper prints the key."""
    from argilla_server.contexts import accounts
    from argilla_server.database import AsyncSessionLocal
    from argilla_server.models import User, UserRole

    async with AsyncSessionLocal() as db:
        owner = await accounts.get_user_by_username(db, settings["username"])
        if owner is None:
            await User.create(
                db,
                first_name=settings["username"],
                username=settings["username"],
                role=UserRole.owner,
                password_hash=accounts.hash_password(settings["password"]),
                api_key=settings["api_key"],
                workspaces=[],
            )
        elif owner.api_key != settings["api_key"]:
            await owner.update(
                db, api_key=settings["api_key"], password_hash=accounts.hash_password(settings["password"])
            )


def _serve(settings: Settings) -> None:
    import uvicorn

    from . import engine  # registers the search engine before the app looks for it

    assert os.environ["ARGILLA_SEARCH_ENGINE"] == engine.NAME
    run_jobs_in_process()
    reuse_type_adapters()
    skip_unheard_events()
    from argilla_server import app

    uvicorn.run(
        app,
        host=settings["host"],
        port=settings["port"],
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
