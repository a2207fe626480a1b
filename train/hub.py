"""Where a base comes from: a directory, or a hub that may be out of reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from curate.errors import TrainingError
from train.recipe import Base

HUB_SECONDS = 5  # to answer in, or it is taken to be out of reach


def origin(base: Base) -> dict[str, Any]:
    """How a base is asked for: a directory is never looked up on the hub, and no code of a model is run."""
    local = base.is_directory or not hub_answers()
    return {"revision": base.revision, "trust_remote_code": False, "local_files_only": local}


@cache
def hub_answers() -> bool:
    """Whether the hub can be reached, asked once and briefly; transformers would try each file again and again."""
    import httpx2  # huggingface_hub's own client
    from huggingface_hub import get_session
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    if is_offline_mode():
        return False
    try:
        get_session().head(ENDPOINT, timeout=HUB_SECONDS)
    except httpx2.HTTPError:
        return False
    return True


@contextmanager
def hub_errors(base: Base) -> Iterator[None]:
    """Say plainly what a base that cannot be loaded lacks."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        first = " ".join(str(error).split())[:300]
        if base.is_directory:
            fix = "a base is a directory with config.json, a tokenizer and weights as .safetensors"
        else:
            if not hub_answers():
                first = "the model hub does not answer, and the base is not in its cache on this machine"
            fix = (
                f"check the name and the revision, and that the hub can be reached; or fetch it beforehand "
                f"(hf download {base.model}); for a gated model, hf auth login. For a directory write ./{base.model}"
            )
        raise TrainingError(f"the base cannot be loaded: {first}", where=base.model, fix=fix) from error
