"""A finding: one thing that is wrong, with where it stands and how to mend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["error", "warning"]


class Finding(BaseModel):
    """What a check found. `rule` is a short stable name, one section of docs/rules.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str
    level: Level
    pair: str | None = None
    where: str
    message: str
    fix: str


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    """What `--json` prints of findings."""
    counts = Counter(finding.rule for finding in findings)
    return {"findings": [finding.model_dump() for finding in findings], "counts": dict(sorted(counts.items()))}
