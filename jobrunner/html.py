"""Facts as a small HTML table, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping

from jobrunner.memory import format_bytes
from jobrunner.report import JobReport
from jobrunner.status import JobStatus

__all__ = ["facts_table", "job_table"]

_COLOURS = {
    JobStatus.DONE: "#2e7d32",
    JobStatus.RUNNING: "#1565c0",
    JobStatus.VALIDATING: "#1565c0",
    JobStatus.CANCELLED: "#ef6c00",
    JobStatus.ERROR: "#c62828",
}


def facts_table(title: str, facts: Mapping[str, object], colour: str = "inherit") -> str:
    """A table of two columns.

    Args:
        title: stands above it.
        facts: names and values; those that are None are left out.
        colour: of the title.

    Example:
        >>> facts_table("a < b", {"rows": 1})
        "<div><b style='color: inherit'>a &lt; b</b><table><tr><td>rows</td><td>1</td></tr></table></div>"
    """
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value is not None
    )
    return f"<div><b style='color: {colour}'>{html.escape(title)}</b><table>{rows}</table></div>"


def job_table(kind: str, report: JobReport) -> str:
    """A job's facts.

    Args:
        kind: what it is, such as the name of its class.
        report: its report.
    """
    facts = {
        "job": report.name,
        "id": report.job_id,
        "where": None if report.pid is None else f"{report.host or 'this machine'}, pid {report.pid}",
        "ran for": _seconds(report.run_s),
        "CPU time": _seconds(report.cpu_s),
        "peak memory": None if report.peak_rss_bytes is None else format_bytes(report.peak_rss_bytes),
        "attempts": report.attempts if report.attempts > 1 else None,
        "cause": report.cause,
    }
    return facts_table(f"{kind}: {report.status.name}", facts, _COLOURS.get(report.status, "inherit"))


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g} s"
