"""What several tests share: a tiny base, runs that are trained or made by hand on it, a report's scores, a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("tutelage", deadline=None)  # machines are shared: a slow example is no failing one
settings.load_profile("tutelage")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the hub


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny base."""
    from shared_base import make_base

    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; for a module and no longer, since no other event loop can run beside Playwright's."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium here: apt-get install chromium (CI does)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found)
        yield running
        running.close()


@pytest.fixture(scope="session")
def prepared_run(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A workspace with a release and a run, see `evaluated_run`; tests that change it take `run_root`."""
    from evaluated_run import prepare_run

    return prepare_run(tmp_path_factory.mktemp("eval") / "w", tiny_base)


@pytest.fixture
def run_root(prepared_run: Path, tmp_path: Path) -> Path:
    """A copy of `prepared_run` of one's own."""
    return Path(shutil.copytree(prepared_run, tmp_path / "w"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Any:
    """A workspace with a finished run, trained once for all the tests that only look; see `training_cases`."""
    from training_cases import make_workspace

    from train.training import Request, train

    place = make_workspace(tmp_path_factory.mktemp("trained"), tiny_base)
    return place, train(place, Request(place.recipe))


@pytest.fixture(scope="session")
def scored() -> tuple[dict[str, Any], list[Any]]:
    """Scores and failures of a tuned model beside its base, as a report holds them; see `eval_cases`."""
    import eval_cases

    return eval_cases.scored()
