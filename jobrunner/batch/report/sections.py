"""The sections of a report's page that have charts."""

from __future__ import annotations

from jobrunner.batch.report import words
from jobrunner.batch.report.figures import HALF, THIRD, edge_words, histogram_figure, panel_figure, value_words
from jobrunner.batch.report.markup import Child, Markup, element
from jobrunner.batch.report.model import Histogram, Lane, Progress, ReportData
from jobrunner.batch.report.plots import Panel, Results
from jobrunner.batch.report.tables import Cell, behind
from jobrunner.batch.report.timeline_figure import progress_figure, timeline_figure

__all__ = ["distributions", "over_time", "results", "section"]

_TITLES = {"run_s": "Run time", "peak_rss_bytes": "Peak memory"}
_ROWS = 24


def section(name: str, title: str, *children: Child) -> Markup:
    """A section with its heading, which `name` links to."""
    return element("section", element("h2", title, id=name), *children)


def over_time(data: ReportData) -> Markup | None:
    """The timeline and the queue."""
    if data.timeline is None or data.progress is None:
        return None
    timeline = data.timeline
    what = {
        "worker": "One row for each worker process",
        "slot": "Workers that followed each other share a row",
        "host": "One row for each machine",
    }[timeline.kind]
    more = timeline.lanes_total - len(timeline.lanes)
    if more:
        what += f"; {words.count(more)} more are not shown"
    text = f"{what}. Time runs from {words.moment(timeline.segments[0].start)} to "
    text += f"{words.moment(timeline.segments[-1].end)} ({words.zone(timeline.segments[0].start)})"
    pauses = len(timeline.segments) - 1
    if pauses:
        text += f"; {words.spell(pauses, 'pause')} between runs {'is' if pauses == 1 else 'are'} left out"
    heads = ("worker", "processes", "jobs", "failed", "busy", "first start", "last end")
    return section(
        "timeline",
        "Timeline",
        element("p", f"{text}."),
        element(
            "div",
            element("h3", "Jobs by worker"),
            timeline_figure(timeline),
            behind(heads, map(_lane_row, timeline.lanes)),
            class_="card",
        ),
        element(
            "div",
            element("h3", "Queue"),
            progress_figure(timeline, data.progress),
            behind(("at", "waiting or running", "done", "failed"), _progress_rows(data.progress)),
            class_="card",
        ),
    )


def _lane_row(lane: Lane) -> tuple[Child | Cell, ...]:
    return (
        f"{lane.host} · {lane.name}",
        Cell(words.count(lane.workers), lane.workers),
        Cell(words.count(lane.jobs), lane.jobs),
        Cell(words.count(lane.failed), lane.failed),
        Cell(words.duration(lane.busy_s), lane.busy_s),
        Cell(words.moment(lane.start), lane.start),
        Cell(words.moment(lane.end), lane.end),
    )


def _progress_rows(progress: Progress) -> list[tuple[Cell, ...]]:
    last = len(progress.times) - 1
    chosen = sorted({round(place * last / (_ROWS - 1)) for place in range(_ROWS)})
    return [
        (
            Cell(words.moment(progress.times[at]), progress.times[at]),
            Cell(words.count(progress.waiting[at]), progress.waiting[at]),
            Cell(words.count(progress.done[at]), progress.done[at]),
            Cell(words.count(progress.failed[at]), progress.failed[at]),
        )
        for at in chosen
    ]


def distributions(data: ReportData) -> Markup | None:
    """The histograms."""
    if not data.histograms:
        return None
    cards = [_histogram_card(found) for found in data.histograms]
    return section("distributions", "Run time and memory", element("div", *cards, class_="grid two"))


def _histogram_card(found: Histogram) -> Markup:
    show, edge = value_words(found), edge_words(found)
    title = _TITLES[found.quantity]
    text = (
        f"Median {show(found.median)}, mean {show(found.mean)}, 95 % below {show(found.p95)}; "
        f"from {show(found.least)} to {show(found.most)}{', on a logarithmic axis' if found.log else ''}."
    )
    rows = [
        (
            Cell(edge(found.edges[at]), found.edges[at]),
            Cell(edge(found.edges[at + 1]), found.edges[at + 1]),
            Cell(words.count(done), done),
            Cell(words.count(failed), failed),
        )
        for at, (done, failed) in enumerate(zip(found.done, found.failed, strict=True))
    ]
    return element(
        "div",
        element("h3", title),
        element("p", text),
        histogram_figure(found, title),
        behind(("from", "to", "done", "failed"), rows),
        class_="card",
    )


def results(data: ReportData) -> Markup | None:
    """The plots of results."""
    found = data.results
    if not found.done:
        return None
    wide = HALF if len(found.panels) <= 4 else THIRD
    cards = [_panel_card(panel, wide) for panel in found.panels]
    notes = _reading_notes(found)
    return section(
        "results",
        "Results",
        element("p", " ".join(notes)) if notes else None,
        element("div", *cards, class_=f"grid {'two' if wide == HALF else 'three'}") if cards else None,
    )


def _panel_card(panel: Panel, wide: float) -> Markup:
    over = [*panel.over, *(["replicates"] if panel.averaged else [])]
    names = " and ".join(filter(None, (", ".join(over[:-1]), *over[-1:])))
    text = f"Each mark is the mean over {names}. " if names else ""
    if panel.errors == "range":
        text = f"Mean{f' over {names}' if panel.over else ''} in each part of the axis; "
        text += "the band reaches from the least to the greatest result."
    else:
        if panel.errors == "standard error":
            text += "Bars: standard error of the mean."
        elif panel.errors == "standard deviation":
            text += "Bars: standard deviation."
        elif panel.errors == "given":
            text += f"Bars: {panel.column}_error."
    heads = [panel.x, *([", ".join(panel.by)] if panel.by else []), panel.column, "from", "to", "results"]
    rows = [
        (
            panel.categories[int(dot.x)] if panel.categories else Cell(words.number(dot.x, 6), dot.x),
            *([series.label] if panel.by else []),
            Cell(words.number(dot.y, 8), dot.y),
            Cell(words.number(dot.low, 8) if dot.low is not None else "", dot.low),
            Cell(words.number(dot.high, 8) if dot.high is not None else "", dot.high),
            Cell(words.count(dot.count), dot.count),
        )
        for series in panel.series
        for dot in series.dots
    ]
    return element(
        "div",
        element("h3", f"{panel.column} against {panel.x}"),
        element("p", text) if text else None,
        panel_figure(panel, wide),
        behind(heads, rows),
        class_="card",
    )


def _reading_notes(found: Results) -> list[str]:
    notes = []
    if not found.panels:
        notes.append("No result has a column of numbers that could be drawn over a parameter.")
    if found.left_out:
        names = ", ".join(found.left_out[:20]) + (", …" if len(found.left_out) > 20 else "")
        notes.append(f"Further columns are not drawn: {names}.")
    if found.series_left_out:
        notes.append(f"{words.spell(found.series_left_out, 'further value')} of the second parameter are not drawn.")
    if found.withheld:
        notes.append(
            f"{words.spell(found.withheld, 'result')} that are pickles were not loaded, since another user could have "
            "written this store."
        )
    if found.unread_pickles:
        notes.append(f"{words.spell(found.unread_pickles, 'pickled result')} were left out, since there are many.")
    rest = found.done - found.read - found.withheld - found.unread_pickles - found.unreadable - found.too_large
    if rest > 0 and found.read:
        notes.append(f"Drawn from {words.count(found.read)} of {words.spell(found.done, 'result')}, evenly chosen.")
    if found.unreadable:
        notes.append(f"{words.spell(found.unreadable, 'result')} could not be loaded.")
    if found.too_large:
        notes.append(f"{words.spell(found.too_large, 'result')} were left out for their size.")
    return notes
