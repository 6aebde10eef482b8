"""The page: one HTML text that needs nothing else, and may load nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jobrunner.batch.report import words
from jobrunner.batch.report.facts import failures, head, history, parameters, surroundings, tiles
from jobrunner.batch.report.markup import Markup, element, join
from jobrunner.batch.report.model import ReportData
from jobrunner.batch.report.sections import distributions, over_time, results

__all__ = ["MARK", "render"]

#: What every page says of where it comes from, near its beginning.
MARK = "jobrunner report"

_LINKS = {
    "timeline": "Timeline",
    "distributions": "Run time and memory",
    "results": "Results",
    "failures": "Failures",
    "parameters": "Parameters",
    "runs": "Runs",
    "machine": "Code and machine",
}


def render(data: ReportData) -> str:
    """The page of a report."""
    style, script = _asset("report.css"), _asset("report.js")
    found = {
        "timeline": over_time(data),
        "distributions": distributions(data),
        "results": results(data),
        "failures": failures(data),
        "parameters": parameters(data),
        "runs": history(data),
        "machine": surroundings(data),
    }
    links = [element("a", _LINKS[name], href=f"#{name}") for name, part in found.items() if part is not None]
    body = element(
        "body",
        element("header", head(data.summary), element("nav", *links, aria_label="Sections")),
        element("main", tiles(data), _notice(data), *found.values()),
        element(
            "footer",
            f"Made {words.moment(data.made_at)} ({words.zone(data.made_at)}) by jobrunner {data.version} "
            f"from {data.store}. Times are local to the machine that made this page.",
        ),
        element("script", Markup(script)),
    )
    document = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
            element("meta", name="generator", content=MARK),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", f"{data.summary.name} – jobrunner report"),
            element("style", Markup(style)),
        ),
        body,
        lang="en",
    )
    return join([Markup("<!doctype html>\n"), document, Markup("\n")])


def _asset(name: str) -> str:
    return resources.files("jobrunner.batch.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """A policy by which the page loads nothing, and runs no script but its own, whatever a text in it might smuggle."""
    return (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _notice(data: ReportData) -> Markup | None:
    summary = data.summary
    rest = summary.total - summary.done - summary.failed
    if not rest or not summary.total:
        return None
    if summary.running:
        text = f"The batch is running: {words.spell(rest, 'point')} to go when this page was made."
        if summary.rate:
            text += (
                f" At {words.number(summary.rate, 3)} jobs a second that takes {words.duration(rest / summary.rate)}."
            )
    else:
        text = f"{words.spell(rest, 'point')} not run to an end; the same command again resumes the batch."
    return element("div", element("p", text), class_="card notice")
