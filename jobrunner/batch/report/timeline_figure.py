"""The charts over time: a lane for each worker, and the queue.  Both have one axis, which leaves pauses out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jobrunner.batch.report import words
from jobrunner.batch.report.chart import MEDIUM, NARROW, WIDE, Frame, legend, variants
from jobrunner.batch.report.markup import Child, Markup, element, join
from jobrunner.batch.report.model import Lane, Progress, Timeline
from jobrunner.batch.report.scales import linear, time_step
from jobrunner.batch.report.timeline import Axis

__all__ = ["progress_figure", "timeline_figure"]

#: What a pause takes up, in pixels.
_PAUSE = 14.0
#: A batch of less seconds is told in time from its start, a longer one by the clock.
_SHORT = 600.0
#: Shades of how busy a lane was.
_LEVELS = 5


class TimeAxis:
    """Where moments lie in a chart.

    Args:
        timeline: has the segments.
        frame: the chart's.
    """

    def __init__(self, timeline: Timeline, frame: Frame) -> None:
        self.axis = Axis(timeline.segments)
        self._frame = frame
        self._pause = min(_PAUSE, frame.inner_width / (4 * len(timeline.segments)))
        self._scale = (frame.inner_width - self._pause * (len(timeline.segments) - 1)) / self.axis.length

    def x(self, moment: float) -> float:
        """The horizontal place of a moment."""
        place = self._frame.left + self.axis.at(moment) * self._scale + self.axis.segment(moment) * self._pause
        return round(place, 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Round times with their labels."""
        segments = self.axis.segments
        count = max(2, int(self._frame.inner_width / 64))
        step = time_step(self.axis.length, count)
        begin = segments[0].start
        if self.axis.length < _SHORT and len(segments) == 1:
            return [
                (self.x(begin + index * step), words.short(float(f"{index * step:.12g}"), step))
                for index in range(math.floor(self.axis.length / step + 1e-6) + 1)
            ]
        found = []
        for segment in segments:
            ahead = words.offset_s(segment.start)  # round in local time
            first = math.ceil((segment.start + ahead) / step)
            last = math.floor((segment.end + ahead) / step)
            found += [index * step - ahead for index in range(first, last + 1)]
        return [(self.x(moment), words.clock(moment, step)) for moment in found]

    def pauses(self, top: float, bottom: float) -> Markup:
        """Bands where time is left out."""
        parts = []
        for before, after in zip(self.axis.segments, self.axis.segments[1:], strict=False):
            left = self.x(before.end) + 1
            text = f"pause of {words.duration(after.start - before.end)}, from {words.moment(before.end)}"
            parts.append(
                element(
                    "rect",
                    x=left,
                    y=top,
                    width=max(1.0, round(self._pause - 2, 1)),
                    height=round(bottom - top, 1),
                    class_="pause",
                    data_tip=text,
                )
            )
        return join(parts)


def _title(timeline: Timeline) -> str:
    axis = Axis(timeline.segments)
    if axis.length < _SHORT and len(axis.segments) == 1:
        return f"time since {words.moment(axis.segments[0].start)} ({words.zone(axis.segments[0].start)})"
    return f"local time ({words.zone(axis.segments[0].start)})"


def timeline_figure(timeline: Timeline) -> Markup:
    """The jobs by worker."""
    few = any(lane.bars for lane in timeline.lanes)
    statuses = {bar.status for lane in timeline.lanes for bar in lane.bars}
    failing = any(lane.failed for lane in timeline.lanes)
    entries: list[tuple[str, str]]
    if few:
        entries = [(status, status) for status in ("done", "failed", "retried") if status in statuses]
    else:
        entries = [(f"done d{level}", f"{100 * level // _LEVELS} %") for level in range(1, _LEVELS + 1)]
        entries += [("failed", "failures")] if failing else []
    if len(timeline.segments) > 1:
        entries.append(("pause", "pause, left out"))
    return join(
        [
            legend(entries, "" if few else "busy up to"),
            variants(lambda width: _draw_timeline(timeline, width), WIDE, MEDIUM, NARROW),
        ]
    )


def _draw_timeline(timeline: Timeline, width: float) -> Markup:
    lanes = timeline.lanes
    height = 20.0 if len(lanes) <= 12 else 15.0 if len(lanes) <= 24 else 11.0
    hosts = len({lane.host for lane in lanes})
    headers = hosts if hosts > 1 and timeline.kind != "host" else 0
    frame = Frame(
        width,
        len(lanes) * height + headers * 20 + 48,
        left=110 if timeline.kind == "host" and width > 600 else 62,
        top=6,
        bottom=42,
    )
    axis = TimeAxis(timeline, frame)
    parts: list[Child] = []
    y = frame.top
    host = None
    for lane in lanes:
        if headers and lane.host != host:
            parts.append(element("text", lane.host, x=0, y=y + 14, class_="tick host"))
            y += 20
        host = lane.host
        parts += _lane(timeline, lane, axis, y, height, frame)
        y += height
    label = (
        f"Timeline of jobs: {words.spell(sum(lane.jobs for lane in lanes), 'job')} on {words.spell(len(lanes), 'lane')}"
    )
    return frame.svg(label, *parts, axis.pauses(frame.top, frame.floor), frame.x_axis(axis.ticks(), _title(timeline)))


def _lane(timeline: Timeline, lane: Lane, axis: TimeAxis, y: float, height: float, frame: Frame) -> list[Child]:
    name = lane.host if timeline.kind == "host" else lane.name
    room = int((frame.left - 8) / 6.6)
    shown = name if len(name) <= room else f"{name[: room - 1]}…"
    tip = (
        f"{lane.host} · {lane.name}\n{words.spell(lane.jobs, 'job')}, {words.count(lane.failed)} failed\n"
        f"busy {words.duration(lane.busy_s)}"
    )
    parts: list[Child] = [
        element("text", shown, x=frame.left - 7, y=y + height / 2 + 4, class_="tick end", data_tip=tip),
        element("rect", x=frame.left, y=y + 1, width=frame.inner_width, height=height - 2, class_="lane"),
    ]
    for bar in lane.bars:
        left, right = axis.x(bar.start), axis.x(bar.end)
        took = words.duration(bar.end - bar.start)
        parts.append(
            element(
                "rect",
                x=left,
                y=y + 1,
                width=max(1.0, round(right - left - 0.7, 1)),
                height=height - 2,
                class_=bar.status,
                data_tip=f"point {bar.place}: {bar.status}\n{took}, from {words.moment(bar.start)}",
            )
        )
    if lane.density:
        parts.append(_shades(timeline, lane, axis, y, height))
    return parts


def _shades(timeline: Timeline, lane: Lane, axis: TimeAxis, y: float, height: float) -> Markup:
    """The bins of a lane: one path for each shade keeps the page small."""
    size = axis.axis.length / timeline.bins
    paths: dict[str, list[str]] = {}
    for place, part in enumerate(lane.density):
        if part <= 0:
            continue
        left, right = _bin(axis, place * size, (place + 1) * size)
        level = min(_LEVELS, max(1, math.ceil(part * _LEVELS - 1e-9)))
        square = f"M{left:g} {y + 1:g}h{right - left:.1f}v{height - 2:g}H{left:g}z"
        paths.setdefault(f"done d{level}", []).append(square)
        if lane.failures and lane.failures[place]:
            mark = f"M{left:g} {y + height - 4:g}h{max(1.5, right - left):.1f}v3H{left:g}z"
            paths.setdefault("failed", []).append(mark)
    order = sorted(paths, key=lambda class_: class_ == "failed")
    return element("g", *(element("path", d="".join(paths[class_]), class_=class_) for class_ in order))


def _bin(axis: TimeAxis, start: float, end: float) -> tuple[float, float]:
    """The horizontal ends of a bin; one that reaches over a pause ends there."""
    left = axis.x(axis.axis.moment(start))
    right = axis.x(axis.axis.moment(end - (end - start) * 1e-6))
    pause = axis.axis.segment(axis.axis.moment(start)) != axis.axis.segment(axis.axis.moment(end * (1 - 1e-9)))
    if pause:
        right = axis.x(axis.axis.segments[axis.axis.segment(axis.axis.moment(start))].end)
    return left, max(left + 0.3, right)


def progress_figure(timeline: Timeline, progress: Progress) -> Markup:
    """Points done, failed and waiting over time."""
    total = progress.done[-1] + progress.failed[-1] + progress.waiting[-1]
    label = (
        f"Queue over time: {words.count(progress.waiting[0])} points waiting at first, "
        f"{words.count(progress.waiting[-1])} at last"
    )

    def draw(width: float) -> Markup:
        frame = Frame(width, 250, left=62)
        up = linear(0, max(1, total), whole=True)
        axis = TimeAxis(timeline, frame)
        floor = [0] * len(progress.times)
        both = [done + failed for done, failed in zip(progress.done, progress.failed, strict=True)]
        area = _Area(progress.times, axis, lambda value: frame.y(up.at(value)), stairs=total <= 200)
        return frame.svg(
            label,
            frame.y_axis(up, lambda value: words.count(round(value)), "points"),
            element("path", d=area.between(floor, progress.done), class_="done area"),
            element("path", d=area.between(progress.done, both), class_="failed area") if progress.failed[-1] else None,
            element("path", d=area.line(progress.waiting), class_="waiting"),
            axis.pauses(frame.top, frame.floor),
            frame.x_axis(axis.ticks(), _title(timeline)),
        )

    entries = [("waiting-swatch", "waiting or running"), ("done area", "done")]
    entries += [("failed area", "failed")] if progress.failed[-1] else []
    return join([legend(entries), variants(draw, WIDE, MEDIUM, NARROW)])


class _Area:
    """Paths over the moments of a chart."""

    def __init__(self, times: Sequence[float], axis: TimeAxis, y: Callable[[float], float], *, stairs: bool) -> None:
        self._places = [axis.x(moment) for moment in times]
        self._y = y
        self._stairs = stairs

    def points(self, values: Sequence[int]) -> list[str]:
        found = []
        before = None
        for place, (x, value) in enumerate(zip(self._places, values, strict=True)):
            same = value == before and 0 < place < len(values) - 1 and values[place + 1] == value
            if same:  # on a level line
                continue
            if self._stairs and before is not None:
                found.append(f"{x:g} {self._y(before):g}")
            found.append(f"{x:g} {self._y(value):g}")
            before = value
        return found

    def line(self, values: Sequence[int]) -> str:
        return f"M{'L'.join(self.points(values))}"

    def between(self, lower: Sequence[int], upper: Sequence[int]) -> str:
        return f"M{'L'.join([*self.points(upper), *reversed(self.points(lower))])}z"
