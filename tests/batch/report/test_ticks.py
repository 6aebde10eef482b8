"""No two ticks of an axis are told alike, however narrow its range is."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobrunner.batch.report import words
from jobrunner.batch.report.distributions import histogram
from jobrunner.batch.report.figures import edge_words, histogram_figure, panel_figure, value_words
from jobrunner.batch.report.model import Segment, Timeline
from jobrunner.batch.report.panels import Sample, panel
from jobrunner.batch.report.plots import Dot
from jobrunner.batch.report.scales import logarithmic
from jobrunner.batch.report.timeline_figure import timeline_figure

MIB = 2.0**20


def _labels(figure: str, kind: str) -> list[list[str]]:
    """The labels of one axis, for each width that a figure is drawn for."""
    charts = figure.split("<svg ")[1:]
    found = [re.findall(rf'class="{kind}"[^>]*>([^<]+)<', chart) for chart in charts if "swatch" not in chart[:200]]
    assert found
    return found


def _quantity(name: str, values: list[float]) -> list[list[str]]:
    found = histogram(name, values, [])
    assert found is not None
    return _labels(str(histogram_figure(found, "Quantity")), "tick middle")


def test_a_narrow_range_of_memory_has_labels_that_differ() -> None:
    wide, _ = _quantity("peak_rss_bytes", [21.52 * MIB, 21.53 * MIB, 21.57 * MIB, 21.6 * MIB])
    assert wide == ["21.52 MiB", "21.54 MiB", "21.56 MiB", "21.58 MiB", "21.6 MiB"]


def test_a_narrow_range_of_run_times_has_labels_that_differ() -> None:
    wide, _ = _quantity("run_s", [21.602, 21.603, 21.604])
    assert wide[:2] == ["21.602 s", "21.6025 s"]
    wide, _ = _quantity("run_s", [3600.0, 3610.0, 3620.0])
    assert wide == ["1:00:00 h", "1:00:05 h", "1:00:10 h", "1:00:15 h", "1:00:20 h"]


def test_the_least_and_the_greatest_of_a_narrow_range_are_told_apart() -> None:
    found = histogram("peak_rss_bytes", [21.501 * MIB, 21.52 * MIB, 21.53 * MIB], [])
    assert found is not None
    assert [value_words(found)(value) for value in (found.least, found.most)] == ["21.501 MiB", "21.53 MiB"]


WIDTHS = st.floats(1e-7, 1e4)


@given(st.sampled_from(["run_s", "peak_rss_bytes"]), st.floats(1e-3, 1e9), st.lists(WIDTHS, min_size=1, max_size=9))
@example("peak_rss_bytes", 2.0**30, [0.001])
@example("run_s", 86400.0, [1e-5])
@example("run_s", 300_000.0, [0.01])
@example("peak_rss_bytes", 1e6, [0.5])
def test_ticks_and_bins_of_any_histogram_are_told_apart(name: str, least: float, widths: list[float]) -> None:
    values = [least, *(least * (1 + width) for width in widths)]
    for labels in _quantity(name, values):
        assert len(labels) == len(set(labels))
    found = histogram(name, values, [])
    assert found is not None
    edges = list(map(edge_words(found), found.edges))
    assert len(edges) == len(set(edges))


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.booleans())
@example(21.6, 0.003, False)
@example(1e6, 0.5, False)
@example(1.0, 1e8, True)
def test_ticks_of_any_plot_are_told_apart(least: float, span: float, skewed: bool) -> None:
    places = (0.0, 1e-4, 1e-3, 1.0) if skewed else (0.0, 0.3, 0.6, 1.0)
    ends = [least + place * span for place in places]
    dots = [Dot(x=value, y=value, low=None, high=None, count=1) for value in ends]
    made = panel("y", x="x", by=(), over=(), categories=(), averaged=False, given=False, samples=[Sample("", dots)])
    figure = str(panel_figure(made, 510))
    for kind in ("tick middle", "tick end"):
        for labels in _labels(figure, kind):
            assert labels
            assert len(labels) == len(set(labels))


def test_a_narrow_logarithmic_axis_has_ticks_too() -> None:
    ticks = logarithmic(3.1, 3.2).ticks
    assert len(ticks) >= 2
    assert all(3.1 <= tick <= 3.2 for tick in ticks)


@pytest.mark.parametrize("length", [0.02, 0.3, 4.0, 50.0, 700.0])
def test_moments_of_short_runs_with_a_pause_between_are_told_apart(length: float) -> None:
    begin = 1_772_395_200.0  # on the hour
    segments = tuple(Segment(start=begin + at, end=begin + at + length) for at in (0.0, 5_000.0))
    figure = str(timeline_figure(Timeline(segments=segments, kind="worker", lanes=(), lanes_total=0, bins=1)))
    for labels in _labels(figure, "tick middle"):
        assert labels
        assert len(labels) == len(set(labels))


def test_a_tenth_of_a_second_after_midnight_is_no_date() -> None:
    midnight = -words.offset_s(0.0) + 86400.0
    assert words.clock(midnight + 0.1, 0.1) == "00:00.1"
