"""The errors a user can meet. Each says what is wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class TutelageError(Exception):
    """Bad input or a state that does not permit the command; the command line prints it without a traceback."""

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            lines.append(f"To mend it: {self.fix}")
        return "\n".join(lines)


class WorkspaceError(TutelageError):
    """A workspace, release, run or report is missing, incomplete or damaged."""


class BehaviourError(TutelageError):
    """`behaviour.yaml` or the schema it names does not hold together."""


class PairError(TutelageError):
    """A pair cannot be read or written."""


class RecipeError(TutelageError):
    """A training recipe does not hold together."""


class TrainingError(TutelageError):
    """Training was refused or could not go on."""


class PredictionError(TutelageError):
    """A predictions file cannot be scored."""


class ServerError(TutelageError):
    """The Argilla on this machine cannot be made, started or reached."""


class EndpointError(TutelageError):
    """A server that should answer does not, refuses, or does not say what is needed."""


class ReviewError(TutelageError):
    """A round of review cannot go on: Argilla does not answer, refuses, or holds something else than expected."""


def first_fault(error: ValidationError, whole: str) -> str:
    """The first thing that is wrong, in the words of `all_faults`."""
    return all_faults(error, whole)[0]


def all_faults(error: ValidationError, whole: str) -> list[str]:
    """What is wrong, each as `field: message`; `whole` is said where no single field is to blame."""
    return [_fault(one, whole) for one in error.errors()]


def _fault(error: Mapping[str, Any], whole: str) -> str:
    # of a key that takes one of two types pydantic names the type as if it were a key
    place = ".".join(str(part) for part in error["loc"] if not str(part).startswith("tuple[")) or whole
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key"
    if error["type"] == "missing":
        return f"{place}: this is required"
    if error["type"] == "tuple_type":  # what YAML calls a list
        written = error["input"]
        return f"{place}: this must be a list" + (f": [{written}]" if isinstance(written, (str, float)) else "")
    return f"{place}: {error['msg'].removeprefix('Value error, ')}"
