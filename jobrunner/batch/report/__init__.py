"""A batch as one self-contained HTML page.

::

    jobs.py          every job's times, once ──┬──▶ timeline.py        lanes, pauses left out, the queue
                                               └──▶ distributions.py   histograms
    parameters.py    which vary, their values ─────▶ results.py, panels.py   columns of numbers over parameters
    failures.py      by cause, with stacks
        all of them ──▶ collect.py ──▶ model.py, plots.py  ReportData, of bounded size ──▶ page.py  HTML
                                                                    chart.py, figures.py, timeline_figure.py  SVG
                                                                    sections.py, facts.py, tables.py, markup.py

The page loads nothing: its policy forbids it.  Texts of the user are escaped in one place, `markup.element`.
"""

from jobrunner.batch.report.collect import collect
from jobrunner.batch.report.model import ReportData
from jobrunner.batch.report.page import MARK, render
from jobrunner.batch.report.write import write_page, write_report

__all__ = ["MARK", "ReportData", "collect", "render", "write_page", "write_report"]
