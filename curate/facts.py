"""What a workspace shows of itself: read for advice and for limits, so nothing that is broken stops it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.advise import ENOUGH_REVIEWED, Facts
from curate.errors import TutelageError
from curate.files import parse_json, read_json
from curate.workspace import Workspace, finished

if TYPE_CHECKING:
    from curate.behaviour import Behaviour


def read_facts(workspace: Workspace) -> Facts:
    """The facts of a workspace; `Facts()` where there is none. What cannot be read is named in `problems`."""
    if not workspace.behaviour.is_file():
        return Facts()
    problems: list[str] = []
    behaviour = _behaviour(workspace, problems)
    pairs, unanswerable, ids = _pairs(workspace, behaviour, problems)
    return Facts(
        workspace=True,
        pairs=pairs,
        unanswerable=unanswerable,
        reviewed=len(reviewed_ids(workspace) & ids),
        enough=_enough(behaviour) if behaviour else ENOUGH_REVIEWED,
        schema=behaviour is not None and (not behaviour.is_json or behaviour.schema_document is not None),
        abstention=behaviour is not None and behaviour.abstain is not None,
        gate=tuple(behaviour.gate) if behaviour else (),
        guards=_guards(workspace, problems),
        releases=len(finished(workspace.releases)),
        runs=len(finished(workspace.runs)),
        reports=len(finished(workspace.reports)),
        verdict=_verdict(workspace, problems),
        problems=tuple(problems),
    )


def _enough(behaviour: Behaviour) -> int:
    """The pairs without which no line of the gate could be shown, split as a release splits by default."""
    from curate.agreement import pairs_wanted
    from curate.splits import FRACTIONS

    wanted = pairs_wanted(behaviour, 0, 0, FRACTIONS["test"]).values()
    return max([ENOUGH_REVIEWED, *(one["settled_pairs_still_wanted"] or 0 for one in wanted)])


def reviewed_ids(workspace: Workspace) -> set[str]:
    """The ids of the pairs that people settled, as of the last pull; unreadable lines count for nothing."""
    from curate.review_log import SETTLED

    path = workspace.review / SETTLED
    if not path.exists():
        return set()
    found = set()
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            value = parse_json(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("pair"), str):
            found.add(value["pair"])
    return found


def _behaviour(workspace: Workspace, problems: list[str]) -> Behaviour | None:
    from curate.behaviour import load_behaviour

    try:
        return load_behaviour(workspace.behaviour)
    except TutelageError as error:
        problems.append(str(error))
        return None


def _pairs(workspace: Workspace, behaviour: Behaviour | None, problems: list[str]) -> tuple[int, int, set[str]]:
    """How many pairs, how many of them unanswerable, and their ids."""
    from curate.pairs import iterate_pairs

    ids: set[str] = set()
    unanswerable = 0
    if not workspace.pairs.exists():
        return 0, 0, ids
    try:
        for pair in iterate_pairs(workspace.pairs):
            ids.add(pair.id)
            answerable = behaviour.is_answerable(pair) if behaviour else pair.answerable is not False
            unanswerable += not answerable
    except TutelageError as error:
        problems.append(str(error))
    return len(ids), unanswerable, ids


def _guards(workspace: Workspace, problems: list[str]) -> tuple[str, ...]:
    """The recipe's guards that are on. Read as plain YAML: what a recipe means is the next stage's business."""
    import yaml

    if not workspace.recipe.is_file():
        return ()
    try:
        data: Any = yaml.safe_load(workspace.recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problems.append(f"{workspace.recipe}: {error}")
        return ()
    guards = data.get("guards", {}) if isinstance(data, dict) else {}
    if not isinstance(guards, dict):
        return ()
    known = ("rehearsal", "kl_to_base", "retention_budget", "adapter_scale", "unanswerable_share")
    return tuple(name for name in known if guards.get(name, True) not in (None, False))  # what is not said is on


def recipe_tokens(path: Path) -> int | None:
    """`training.max_length` of the workspace's recipe, in tokens; None where there is none that can be read.

    Curating needs no recipe, so a faulty one is no fault here: `tutelage train check` names it.
    """
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
    training = recipe.get("training") if isinstance(recipe, dict) else None
    length = training.get("max_length") if isinstance(training, dict) else None
    return length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else None


def _verdict(workspace: Workspace, problems: list[str]) -> str | None:
    from curate.manifest import SCORES

    try:
        newest = workspace.find("report", None)
    except TutelageError:
        return None
    try:
        scores = read_json(newest / SCORES)
    except TutelageError as error:
        problems.append(str(error))
        return None
    verdict = scores.get("verdict") if isinstance(scores, dict) else None
    return verdict if isinstance(verdict, str) else None
