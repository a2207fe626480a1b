"""Findings as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from curate.findings import Finding

EXAMPLES = 3


def listing(findings: Sequence[Finding], total: int, everything: bool = False) -> str:
    """A section per rule, errors first: how many, a few examples (or `everything`), and how to mend them."""
    if not findings:
        return f"{total:,} pairs, no findings"
    groups: dict[tuple[bool, str], list[Finding]] = {}
    for one in findings:
        groups.setdefault((one.level != "error", one.rule), []).append(one)
    lines = []
    for (warning, rule), group in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1]), item[0][1])):
        lines.append(f"{'warning' if warning else 'error':<8} {rule:<16} {len(group):>7,}")
        shown = group if everything else group[:EXAMPLES]
        lines += [
            f"    {one.pair or 'all pairs'}{f' {one.where}' if one.where else ''}: {one.message}" for one in shown
        ]
        if len(shown) < len(group):
            lines.append(f"    … and {len(group) - len(shown):,} more: tutelage curate check --rule {rule}")
        fixes = dict.fromkeys(one.fix for one in group)
        lines += [f"    To mend it: {fix}" for fix in list(fixes)[:EXAMPLES]]
    errors = sum(one.level == "error" for one in findings)
    touched = len({one.pair for one in findings if one.pair})
    lines.append(f"{total:,} pairs: {errors:,} errors and {len(findings) - errors:,} warnings on {touched:,} of them")
    return "\n".join(lines)
