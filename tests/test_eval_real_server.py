"""A real `transformers serve` beside the same base in process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_models import free_port, serving

from curate.errors import EndpointError
from eval.endpoint import Endpoint, Served

BASE = Path(__file__).parent.parent / "recipes/demo/base"


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """A real `transformers serve` with the demo's base; its address."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(BASE), "--device", "cpu"]
    with serving([*command, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"], port) as url:
        yield url


@pytest.mark.slow
def test_a_real_server_answers_as_in_process(served: str) -> None:
    from tutelage_recipes.demo import world

    from eval.subject import Subject
    from train.recipe import Base

    conversations = [
        [
            {"role": "system", "content": world.SUPPORT_SYSTEM},
            {"role": "user", "content": world.support_prompt(trace)},
        ]
        for trace in world.traces(17, 24)
    ]
    inside = Subject("demo", Base(model=str(BASE)), None, "cpu")
    outside = Endpoint("demo", Served(served, str(BASE), logprobs=False))
    wanted = inside.answer("tuned", [inside.render(one) for one in conversations], 60)
    found = outside.answer("tuned", [outside.render(one) for one in conversations], 60)
    assert [one.text for one in found] == [one.text for one in wanted]
    assert [one.finished for one in found] == [one.finished for one in wanted]
    with pytest.raises(EndpointError, match="no log-probabilities"):
        Endpoint("demo", Served(served, str(BASE))).answer("tuned", [outside.render(conversations[0])], 5)
    with pytest.raises(EndpointError, match="pinned to"):
        Endpoint("demo", Served(served, "another")).answer("tuned", [outside.render(conversations[0])], 5)
