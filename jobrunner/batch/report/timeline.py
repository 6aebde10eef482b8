"""The jobs over time: the time axis, which leaves pauses out, a lane for each worker, and the queue."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from jobrunner.batch.report.jobs import DONE, STATUSES, Jobs
from jobrunner.batch.report.model import Bar, Lane, Progress, Segment, Timeline

__all__ = ["Axis", "make_axis", "progress", "timeline"]

#: Up to so many jobs are drawn one by one.
BARS = 600
#: Up to so many lanes are drawn.
LANES = 48
#: How finely the jobs of a larger batch are told.
BINS = 240
#: At most so many pauses are left out, the longest.
_PAUSES = 8
#: A pause is left out from this part of the time without pauses on.
_PAUSE = 0.1


class Axis:
    """Time without pauses: maps moments to seconds from the start in which jobs ran.

    Args:
        segments: the stretches of time, ascending.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self._starts = [segment.start for segment in segments]
        self._offsets = [0.0]
        for segment in segments:
            self._offsets.append(self._offsets[-1] + segment.end - segment.start)
        self.length = self._offsets[-1]

    def at(self, moment: float) -> float:
        """The place of a moment; one in a pause lies at its beginning."""
        number = self.segment(moment)
        segment = self.segments[number]
        return self._offsets[number] + min(max(moment, segment.start), segment.end) - segment.start

    def segment(self, moment: float) -> int:
        """The number of the segment that a moment lies in, or that the pause follows in which it lies."""
        return max(0, bisect.bisect_right(self._starts, moment) - 1)

    def moment(self, place: float) -> float:
        """The moment at a place."""
        number = min(max(0, bisect.bisect_right(self._offsets, place) - 1), len(self.segments) - 1)
        return self.segments[number].start + place - self._offsets[number]


def make_axis(spans: Iterable[tuple[float, float]]) -> Axis | None:
    """The axis on which `spans` lie, ``(start, end)`` each; None for none."""
    merged: list[list[float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    if not merged:
        return None
    active = sum(end - start for start, end in merged)
    gaps = [(after[0] - before[1], index) for index, (before, after) in enumerate(itertools.pairwise(merged))]
    # The shortest first: what is too short to be left out makes the axis longer, by which the next is judged.
    gaps.sort()
    while gaps and (gaps[0][0] < _PAUSE * active or len(gaps) > _PAUSES):
        active += gaps.pop(0)[0]
    cuts = {index for _, index in gaps}
    segments = []
    start = merged[0][0]
    for index, (_, end) in enumerate(merged):
        if index in cuts or index == len(merged) - 1:
            segments.append(Segment(start=start, end=end))
            if index + 1 < len(merged):
                start = merged[index + 1][0]
    if all(segment.end <= segment.start for segment in segments):
        segments = [Segment(start=merged[0][0], end=max(merged[0][0] + 1.0, merged[-1][1]))]
    return Axis(segments)


def timeline(jobs: Jobs, axis: Axis) -> Timeline:
    """The jobs by worker, on `axis`."""
    owners, kind = _owners(jobs)
    rows: dict[tuple[str, int], list[int]] = defaultdict(list)
    for job, worker in enumerate(jobs.worker):
        rows[owners[worker]].append(job)
    workers: dict[tuple[str, int], int] = defaultdict(int)
    for owner in owners:
        workers[owner] += 1
    made = [_lane(jobs, axis, rows[owner], owner, kind, workers[owner]) for owner in rows]
    numbers = {id(lane): number for lane, (_, number) in zip(made, rows, strict=True)}
    made.sort(key=lambda lane: (lane.host, axis.segment(lane.start), numbers[id(lane)]))
    return Timeline(segments=axis.segments, kind=kind, lanes=tuple(made[:LANES]), lanes_total=len(made), bins=BINS)


def _owners(jobs: Jobs) -> tuple[list[tuple[str, int]], str]:
    """For each worker its lane, ``(host, number)``, and what a lane is."""
    if len(jobs.workers) <= LANES:
        return jobs.workers, "worker"
    # Workers that followed each other (a batch that was resumed, workers replaced after some jobs) share a slot.
    first = [float("inf")] * len(jobs.workers)
    last = [float("-inf")] * len(jobs.workers)
    for worker, start, end in zip(jobs.worker, jobs.start, jobs.end, strict=True):
        first[worker] = min(first[worker], start)
        last[worker] = max(last[worker], end)
    owners: list[tuple[str, int]] = [("", 0)] * len(jobs.workers)
    free: dict[str, list[int]] = defaultdict(list)
    used: dict[str, int] = defaultdict(int)
    ending: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for worker in sorted(range(len(jobs.workers)), key=first.__getitem__):
        host = jobs.workers[worker][0]
        while ending[host] and ending[host][0][0] <= first[worker]:
            heappush(free[host], heappop(ending[host])[1])
        if free[host]:
            slot = heappop(free[host])
        else:
            used[host] += 1
            slot = used[host]
        heappush(ending[host], (last[worker], slot))
        owners[worker] = host, slot
    if sum(used.values()) <= LANES:
        return owners, "slot"
    return [(host, 0) for host, _ in jobs.workers], "host"


def _lane(jobs: Jobs, axis: Axis, own: list[int], owner: tuple[str, int], kind: str, workers: int) -> Lane:
    own.sort(key=jobs.start.__getitem__)
    host, number = owner
    width = _most_at_a_time(jobs, own) if kind == "host" else 1
    failed = sum(jobs.status[job] != DONE for job in own)
    few = len(jobs.start) <= BARS
    return Lane(
        host=host,
        name={"worker": str(number), "slot": f"slot {number}", "host": "all"}[kind],
        workers=workers,
        width=width,
        jobs=len(own),
        failed=failed,
        busy_s=sum(jobs.end[job] - jobs.start[job] for job in own),
        start=jobs.start[own[0]],
        end=max(jobs.end[job] for job in own),
        bars=tuple(_bar(jobs, job) for job in own) if few else (),
        density=() if few else _density(jobs, axis, own, width),
        failures=() if few or not failed else _failures(jobs, axis, own),
    )


def _bar(jobs: Jobs, job: int) -> Bar:
    return Bar(start=jobs.start[job], end=jobs.end[job], status=STATUSES[jobs.status[job]], place=jobs.place[job])


def _most_at_a_time(jobs: Jobs, own: Sequence[int]) -> int:
    running: list[float] = []
    most = 1
    for job in own:  # by their start
        while running and running[0] <= jobs.start[job]:
            heappop(running)
        heappush(running, jobs.end[job])
        most = max(most, len(running))
    return most


def _density(jobs: Jobs, axis: Axis, own: Sequence[int], width: int) -> tuple[float, ...]:
    size = axis.length / BINS
    busy = [0.0] * BINS
    inner = [0] * (BINS + 1)  # how many jobs begin (or, counted negative, end) to fill whole bins
    for job in own:
        start, end = axis.at(jobs.start[job]), axis.at(jobs.end[job])
        first, last = min(BINS - 1, int(start / size)), min(BINS - 1, int(end / size))
        if first == last:
            busy[first] += end - start
            continue
        busy[first] += (first + 1) * size - start
        busy[last] += end - last * size
        inner[first + 1] += 1
        inner[last] -= 1
    found = []
    filling = 0
    for index, part in enumerate(busy):
        filling += inner[index]
        found.append(round(min(1.0, (part / size + filling) / width), 4))
    return tuple(found)


def _failures(jobs: Jobs, axis: Axis, own: Iterable[int]) -> tuple[int, ...]:
    counts = [0] * BINS
    for job in own:
        if jobs.status[job] != DONE:
            counts[min(BINS - 1, int(axis.at(jobs.end[job]) / axis.length * BINS))] += 1
    return tuple(counts)


def progress(jobs: Jobs, axis: Axis, total: int) -> Progress:
    """How many points were final, and how many were not, at moments along `axis`."""
    places = {index * axis.length / BINS for index in range(BINS + 1)}
    times = sorted({moment for segment in axis.segments for moment in (segment.start, segment.end)})
    times = sorted({*times, *(axis.moment(place) for place in places)})
    done, failed = _counts(sorted(jobs.done_at), times), _counts(sorted(jobs.failed_at), times)
    waiting = tuple(total - ended - lost for ended, lost in zip(done, failed, strict=True))
    return Progress(times=tuple(times), done=done, failed=failed, waiting=waiting)


def _counts(ends: Sequence[float], times: Sequence[float]) -> tuple[int, ...]:
    return tuple(bisect.bisect_right(ends, moment) for moment in times)
