"""The sections of a report's page that are told in words and tables."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from jobrunner.batch.report import words
from jobrunner.batch.report.markup import Child, Markup, element
from jobrunner.batch.report.model import Failure, Parameter, ReportData, Summary
from jobrunner.batch.report.sections import section
from jobrunner.batch.report.tables import Cell, facts, nested, table

__all__ = ["failures", "head", "history", "parameters", "surroundings", "tiles"]

_VALUES = 12
#: Failures that are told without a further click.
_OPEN = 10


def head(summary: Summary) -> Markup:
    """Name, target, state, and a bar of what is done."""
    state, class_ = _state(summary)
    seed = ""
    if summary.seed is not None:
        seed = f" · seed {summary.seed}{' (drawn)' if summary.seed_drawn else ''}"
    replicates = f" · {summary.replicates} replicates" if summary.replicates > 1 else ""
    return element(
        "div",
        element("h1", summary.name),
        element("p", element("code", summary.target), seed, replicates),
        element("span", state, class_=f"badge {class_}"),
        _meter(summary),
        element("p", _counts(summary)),
    )


def _state(summary: Summary) -> tuple[str, str]:
    if summary.running:
        return "running at this moment", "running"
    if summary.total == 0:
        return "empty: it has no points", "partial"
    if summary.done == summary.total:
        return "all done", "done"
    if summary.done + summary.failed == summary.total:
        return f"ended, {words.count(summary.failed)} failed", "failed"
    if summary.done + summary.failed == 0:
        return "nothing done yet", "partial"
    return "not complete", "partial"


def _counts(summary: Summary) -> str:
    parts = [f"{words.count(summary.done)} of {words.spell(summary.total, 'point')} done"]
    for number, word in (
        (summary.failed, "failed"),
        (summary.cancelled, "cancelled"),
        (summary.leased, "taken up"),
        (summary.pending, "waiting"),
    ):
        if number:
            parts.append(f"{words.count(number)} {word}")
    if summary.retried:
        parts.append(f"{words.spell(summary.retried, 'attempt')} retried")
    if summary.removed:
        parts.append(f"{words.spell(summary.removed, 'point')} no longer in the batch (not counted here)")
    return ", ".join(parts)


def _meter(summary: Summary) -> Markup:
    parts: list[Child] = []
    x = 0.0
    for number, class_ in ((summary.done, "done"), (summary.failed, "failed")):
        if number:
            width = max(0.5, 100 * number / summary.total)
            parts.append(element("rect", x=round(x, 2), width=round(width, 2), height=10, class_=class_))
            x += width
    return element(
        "svg", *parts, viewBox="0 0 100 10", preserveAspectRatio="none", class_="meter", role="img",
        aria_label=_counts(summary),
    )  # fmt: skip


def tiles(data: ReportData) -> Markup:
    """The batch in numbers."""
    summary = data.summary
    spread = {found.quantity: found for found in data.histograms}
    run, memory = spread.get("run_s"), spread.get("peak_rss_bytes")
    hosts = ", ".join(summary.hosts[:3]) + (", …" if len(summary.hosts) > 3 else "")
    slowest = f"median; to {words.duration(run.most)}" if run else None
    usual = f"median {words.size(memory.median)}" if memory else None
    rows: list[tuple[str, str | None, str | None]] = [
        ("Time", words.duration(summary.active_s) if summary.runs else None, _pauses(summary)),
        ("Rate", _rate(summary.rate), words.spell(summary.jobs, "job") + " ended"),
        ("CPU time", words.duration(summary.cpu_s) if summary.jobs else None, _hours(summary.cpu_s)),
        ("CPU efficiency", _part(summary.cpu_efficiency), _of_threads(summary)),
        ("Workers busy", _part(summary.busy), f"of {words.spell(summary.workers, 'worker')}"),
        (
            "Run time",
            words.duration(run.median) if run else None,
            slowest,
        ),
        (
            "Peak memory",
            words.size(memory.most) if memory else None,
            usual,
        ),
        ("Hosts", words.count(len(summary.hosts)) if summary.hosts else None, hosts),
    ]
    cells = [
        element("div", element("dt", name), element("dd", value, element("small", more) if more else None))
        for name, value, more in rows
        if value is not None
    ]
    return element("dl", *cells, class_="tiles")


def _pauses(summary: Summary) -> str | None:
    if summary.began_at is None or summary.ended_at is None:
        return None
    whole = summary.ended_at - summary.began_at
    return f"of {words.duration(whole)} with pauses" if whole > summary.active_s * 1.01 + 1 else "from start to end"


def _rate(rate: float | None) -> str | None:
    if rate is None:
        return None
    for factor, unit in ((1.0, "s"), (60.0, "min"), (3600.0, "h")):
        if rate * factor >= 1 or unit == "h":
            return f"{words.number(rate * factor, 3)} /{unit}"
    raise AssertionError("the last unit takes all")


def _of_threads(summary: Summary) -> str:
    """What the CPU efficiency is a part of."""
    if summary.cpu_efficiency is not None and summary.cpu_efficiency > 1:
        return f"above 100 %: jobs use more than {words.spell(summary.threads, 'thread')}"
    return "CPU time by run time" + (f" of {summary.threads} threads" if summary.threads > 1 else "")


def _hours(seconds: float) -> str:
    return f"{words.number(seconds / 3600, 3)} CPU hours"


def _part(part: float | None) -> str | None:
    return words.percent(part) if part is not None else None


def failures(data: ReportData) -> Markup | None:
    """What failed, and why."""
    found = data.failures
    if not found.total:
        return None
    varying = [parameter.name for parameter in data.parameters if parameter.varies]
    groups = table(
        ("points", "cause"),
        ((Cell(words.count(group.count), group.count), group.cause) for group in found.groups),
    )
    shown = len(found.shown)
    text = f"{words.spell(found.total, 'point')} failed"
    text += f"; {shown} are told below, some of each cause." if shown < found.total else "."
    return section(
        "failures",
        "Failures",
        element("p", text),
        element("div", element("h3", "By cause"), groups, class_="card"),
        element("div", element("h3", "One by one"), *_listed(data, varying), class_="card"),
    )


def _listed(data: ReportData, varying: list[str]) -> list[Child]:
    entries: list[Child] = [_failure(failure, varying) for failure in data.failures.shown]
    rest = entries[_OPEN:]
    if not rest:
        return entries
    return [*entries[:_OPEN], element("details", element("summary", f"Show {len(rest)} more"), *rest)]


def _failure(failure: Failure, varying: list[str]) -> Markup:
    names = [name for name in varying if name in failure.parameters] or list(failure.parameters)
    point = ", ".join(f"{name} = {words.value(failure.parameters[name], 60)}" for name in names) or "no parameters"
    where = f"{failure.host or '?'} · {failure.pid or '?'}" if failure.host or failure.pid else None
    rows: list[tuple[str, Child]] = [
        ("point", str(failure.place)),
        ("parameters", element("code", words.value(dict(failure.parameters), 2_000))),
        ("replicate", str(failure.replicate) if failure.replicate else None),
        ("seed", str(failure.seed) if failure.seed is not None else None),
        ("exit code", str(failure.exit_code) if failure.exit_code is not None else None),
        ("signal", _signal(failure.exit_signal)),
        ("attempts", str(failure.attempts)),
        ("run time", words.duration(failure.run_s) if failure.run_s is not None else None),
        ("at", words.moment(failure.finished_at) if failure.finished_at is not None else None),
        ("worker", where),
    ]
    outputs: list[Child] = []
    for title, text in (("Last Python stack", failure.stack), ("End of stderr", failure.stderr)):
        if text is not None:
            outputs += [element("h3", title), element("pre", text, tabindex="0")]
    return element(
        "details",
        element("summary", element("b", point), element("span", failure.cause)),
        facts(rows),
        *outputs,
        class_="failure",
    )


def _signal(number: int | None) -> str | None:
    if number is None:
        return None
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def parameters(data: ReportData) -> Markup | None:
    """What the function was called with."""
    if not data.parameters:
        return None
    swept = [parameter for parameter in data.parameters if parameter.varies]
    constant = [parameter for parameter in data.parameters if not parameter.varies]
    total = data.summary.total
    parts: list[Child] = []
    if swept:
        rows = [_swept(parameter, total) for parameter in swept]
        parts.append(
            element(
                "div", element("h3", "Swept"), table(("name", "values", "from – to, or which"), rows), class_="card"
            )
        )
    if constant:
        rows_ = [(parameter.name, _constant(parameter, total)) for parameter in constant]
        parts.append(element("div", element("h3", "The same for all"), facts(rows_), class_="card"))
    return section("parameters", "Parameters", element("div", *parts, class_="grid two"))


def _swept(parameter: Parameter, total: int) -> tuple[Child | Cell, ...]:
    many = f"{words.count(parameter.distinct)}{' or more' if parameter.more else ''}"
    values = ", ".join(words.value(value, 40) for value in parameter.values[:_VALUES])
    if parameter.distinct > _VALUES or parameter.more:
        values += ", …"
    if parameter.least is not None and parameter.most is not None and parameter.distinct > 6:
        values = f"{words.number(parameter.least, 8)} – {words.number(parameter.most, 8)}"
    if parameter.points < total:
        values += f" (given at {words.count(parameter.points)} of {words.spell(total, 'point')})"
    return parameter.name, Cell(many, parameter.distinct), values


def _constant(parameter: Parameter, total: int) -> Markup:
    text = words.value(parameter.values[0], 200)
    if 0 < parameter.points < total:
        text += f" (given at {words.count(parameter.points)} of {words.spell(total, 'point')})"
    return element("code", text)


def history(data: ReportData) -> Markup | None:
    """Who ran the batch, and what happened to it."""
    summary = data.summary
    parts: list[Child] = []
    if summary.runs:
        rows = [
            (
                f"{run.host} · {run.pid}",
                Cell(words.count(run.workers), run.workers),
                Cell(words.moment(run.started_at), run.started_at),
                Cell(words.duration(run.ended_at - run.started_at), run.ended_at - run.started_at),
                Cell(words.count(run.jobs), run.jobs),
                run.state,
            )
            for run in summary.runs
        ]
        title = "Runs" if summary.runs_total == len(summary.runs) else f"The last {len(summary.runs)} runs"
        heads = ("process", "workers", "began", "took", "jobs", "state")
        parts.append(element("div", element("h3", title), table(heads, rows), class_="card"))
    if data.notes:
        notes = ((Cell(words.moment(at), at), kind, text) for at, kind, text in data.notes)
        parts.append(element("div", element("h3", "Notes"), table(("at", "kind", "note"), notes), class_="card"))
    return section("runs", "Runs", *parts) if parts else None


def surroundings(data: ReportData) -> Markup:
    """The code, the machine and the options."""
    summary = data.summary
    cards = [
        element("div", element("h3", title), nested(values), class_="card")
        for title, values in _mappings(data, summary)
        if any(value not in (None, {}) for value in values.values())
    ]
    return section("machine", "Code and machine", element("div", *cards, class_="grid two"))


def _mappings(data: ReportData, summary: Summary) -> list[tuple[str, Mapping[str, Any]]]:
    about = {
        "store": data.store,
        "created": words.moment(summary.created_at),
        "target": summary.target,
        "jobrunner": data.version,
    }
    return [
        ("Batch", about),
        ("Options", {**summary.options, **summary.policy}),
        ("Code", data.code),
        ("Machine", data.machine),
    ]
