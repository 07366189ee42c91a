"""Reports of loads as Markdown: what was loaded, how it was read, and what the columns hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sluice.display import in_markdown
from sluice.loading.reporting.report import BadRows, LoadReport
from sluice.loading.targets.plan import PastLoad

_BAR: Final = 10
_PLAIN: Final = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")


def artifact_key(table: str) -> str:
    """Return a key for artifacts about a table; different tables have different keys."""
    slug = re.sub(r"[^a-z0-9]+", "-", table.lower()).strip("-")
    if _PLAIN.fullmatch(table):
        return slug
    return f"{slug}-{hashlib.sha256(table.encode()).hexdigest()[:6]}".strip("-")


def load_page(report: LoadReport) -> str:
    """Return the report of a load."""
    speed = f"{report.rows / report.seconds:,.0f}" if report.seconds else "-"
    facts: dict[str, Any] = {
        "file": report.file,
        "table": report.table + (" (made)" if report.made else ""),
        "mode": report.mode,
        "rows": f"{report.rows:,}",
        "bytes": f"{report.bytes:,}",
        "seconds": f"{report.seconds:.1f}",
        "rows a second": speed,
    }
    if report.bad is not None:
        facts["bad rows"] = f"{report.bad.count:,} of {report.bad.rows:,} ({report.bad.share:.1%})"
    if report.rejected is not None:
        facts["the bad rows are in"] = report.rejected.name
    parts = [_table(("load", ""), facts.items())]
    parts += [f"- {in_markdown(note)}" for note in report.notes]
    for label, evidence in report.evidence.items():
        parts += [f"### How {in_markdown(label)} was read", _table(("", "evidence"), evidence.items())]
    if report.columns:
        parts += ["### What the columns hold", _columns(report.columns)]
    if report.bad is not None:
        parts += ["### Bad rows", _bad(report.bad)]
    return "\n\n".join(parts)


def trend_page(table: str, loads: Sequence[PastLoad]) -> str:
    """Return how the rows and the missing values of a table's last loads have changed; the newest is last."""
    most = max((one.quality.rows for one in loads), default=0)
    rows = []
    for one in loads:
        found = one.quality
        read = found.rows + found.bad
        size = f"{_bar(found.rows / most if most else 0)} {found.rows:,}"
        rows.append((one.loaded_at[:19], one.file, size, f"{found.bad:,} ({found.bad / read if read else 0:.1%})"))
    parts = [f"The last {len(loads)} loads into {in_markdown(table)}", _table(("at", "file", "rows", "bad rows"), rows)]
    changed = [
        (name, *(_percent(one.quality.empty_shares.get(name)) for one in loads))
        for name in dict.fromkeys(name for one in reversed(loads) for name in one.quality.empty_shares)
        if len({one.quality.empty_shares.get(name) for one in loads}) > 1
    ]
    if changed:
        times = [one.loaded_at[5:16] for one in loads]
        parts += ["### Columns whose share of empty values has changed", _table(("column", *times), changed)]
    return "\n\n".join(parts)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def bad_rows_page(file: str, bad: BadRows) -> str:
    """Return what a person is asked to approve: how many rows are bad, and which."""
    return (
        f"{bad.count:,} of {bad.rows:,} rows of {in_markdown(file)} are bad ({bad.share:.1%}). If they are to be left "
        f"out, {bad.rows - bad.count:,} rows are loaded, and the bad ones are put into a file of their own.\n\n"
        + _bad(bad)
    )


def _columns(columns: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in columns:
        ends = f"{one['least']} … {one['most']}" if "least" in one else ""
        top = ", ".join(f"{value} ({count:,})" for value, count in one.get("top", {}).items())
        said = ", ".join(
            [
                str(one["type"]),
                *([f"{one['decimals']} decimals"] if "decimals" in one else []),
                *([f"masked: {one['masked']}"] if "masked" in one else []),
            ]
        )
        rows.append((one["column"], said, f"{_bar(one['empty_share'])} {one['empty_share']:.1%}", ends, top))
    return _table(("column", "type", "empty", "from … to", "most frequent"), rows)


def _bad(bad: BadRows) -> str:
    keys = ("place", "column", "value", "reason")
    return _table(keys, ([one[key] or "" for key in keys] for one in bad.examples))


def _bar(share: float) -> str:
    full = round(share * _BAR) if share < 1 else _BAR
    full = max(full, 1) if share else 0
    return "█" * full + "░" * (_BAR - full)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(in_markdown(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
