"""The page of the documentation, with the results of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.cases import CASES
from benchmarks.peers import MACHINE, OURS
from benchmarks.report import notes_of
from benchmarks.results import Run, Series
from benchmarks.targets import Target, targets

__all__ = ["INTRODUCTION", "as_markdown"]

#: What the page begins with, whatever the run.
INTRODUCTION = """\
# Benchmarks

jobrunner beside other process pools, and beside what the machine itself takes. Written by

```
python -m benchmarks --json benchmarks/results/<name>.json --plot docs/benchmarks --markdown docs/benchmarks.md
```

and again from the kept results, without measuring, if `--load benchmarks/results/<name>.json` is given instead of
`--json …`. `pip install -e '.[bench,plot]'` installs all peers and matplotlib; what is not installed is left out.

## How it measures

- Every sample is taken in a fresh interpreter, and the peers take turns: each is measured once before any is measured
  again, and every round begins with another. So a machine that slows down slows all of them; trust the ratios.
- Cases of one theme share an interpreter and a pool, which is warm when they begin: every worker was started and used.
- The machine's limits take turns like a peer: the echo of as many bytes over a socket pair, a copy into warm memory,
  the start of an interpreter, the work itself in as many plain processes, the end of a process by SIGKILL. A pool does
  at least as much. The echo goes from one core to another, as a job does that is to run beside its caller; on one core
  it takes a fraction of that, which is told too.
- jobrunner runs with its defaults, all that it guarantees being on; each peer at its best documented setting, chunks of
  `map` included. The settings stand below. Peers that are slow are given fewer jobs where many are run.
- Arrays are made anew for each transfer, and who receives one reads a number of every page, as a library may keep what
  it has sent before, and map memory that is fetched later.
- Efficiency is work by core-seconds. Two cores of a virtual machine are rarely twice one, so the pool and as many plain
  processes take turns on the same work within a sample; both ratios are given. Libraries such as OpenBLAS have one
  thread a process everywhere.
- Memory of a queued job is what the caller has grown by (RSS), while every worker waits for a named pipe. Memory of an
  idle worker is that of all processes that the pool has started (PSS), by worker.
- A sample that fails or takes too long is a note, and what it left running is ended. A peer that fails at first is not
  measured again; the longest queues and
  the largest arrays are measured once for each peer.

## How to run it

`python -m benchmarks` measures everything that is installed. `python -m benchmarks round_trip cancel --peers pebble`
measures two cases for jobrunner and Pebble, `--targets` what the table of targets needs. `--quick` shows in a minute or
two that everything works; its figures mean nothing. `--json` keeps the samples in pyperf's format (`pyperf show`,
`pyperf compare_to`); whatever the unit, the smaller a value there, the better: a throughput is kept as the seconds of
one job, an efficiency as the core-seconds for a second of work. Close what else runs on the machine.

## How to read it

A cell is the median, and in parentheses the smallest and the largest sample. *÷ best* is jobrunner's time, memory or
core-seconds by that of the best peer, *÷ limit* by the machine's: the smaller the better, 1.0 is as good. In pictures,
a dot is the median and the bar behind it runs from the smallest to the largest sample; dashed is the machine's limit.
"""


def as_markdown(run: Run, pictures: Sequence[tuple[str, str]]) -> str:
    """The page.

    Args:
        run: what was measured.
        pictures: title and place, relative to the page, of each.
    """
    lines = [*INTRODUCTION.splitlines(), "", "## The machine", "", *_machine(run)]
    found = targets(run)
    if found:
        lines += ["", "## Targets", "", *_targets(found)]
    if pictures:
        lines += ["", "## Pictures"]
        for title, place in pictures:
            lines += ["", f"![{title}]({place})"]
    lines += ["", "## Figures", *_figures(run)]
    lines += ["", "## Settings", "", *_settings(run)]
    return "\n".join(lines) + "\n"


def _machine(run: Run) -> Iterator[str]:
    known = run.metadata
    memory = float(known.get("memory_bytes", 0)) / 2**30
    libraries = [f"{name} {known[key]}" for name in ("numpy", "qiskit") if (key := f"{name}_version") in known]
    software = ", ".join([f"Python {known['python_version']}", *libraries])
    yield f"{known.get('cpu_model_name', 'unknown CPU')}, {known['cpu_count']} cores, {memory:.0f} GiB of memory;"
    yield f"{known['platform']}; {software}."
    yield f"{known['workers']} workers, {known['repeats']} samples of each figure."


def _targets(found: Sequence[Target]) -> Iterator[str]:
    yield _row("figure", OURS, "against", "ratio", "target", "met")
    yield _row(*("---" for _ in range(6)))
    for target in found:
        met = {True: "yes", False: "**no**", None: "not known"}[target.met]
        yield _row(
            target.title,
            target.ours,
            " ".join(filter(None, [target.against, target.theirs])),
            "" if target.ratio is None else f"{target.ratio:.3g}",
            target.wanted,
            f"{met}: {target.note}" if target.note else met,
        )


def _figures(run: Run) -> Iterator[str]:
    """A table a case: a row a figure, a column a peer."""
    for case in CASES.values():
        found = [series for series in run.series if series.case is case]
        if not found:
            continue
        peers = [name for name in (*run.peers, MACHINE) if any(series.peer == name for series in found)]
        yield from ("", f"### {case.name}", "")
        yield _row("", *peers, "÷ best", "÷ limit")
        yield _row(*("---" for _ in range(len(peers) + 3)))
        for key in dict.fromkeys(series.key for series in found):
            cells = [_cell(run.find(key, peer)) for peer in peers]
            yield _row(key.partition("/")[2] or key, *cells, _ratio(run, key, "best"), _ratio(run, key, "limit"))
        yield ""
        for title in dict.fromkeys(series.figure.title for series in found):
            yield f"- {title}"
        for note, names in _notes(found).items():
            yield f"- {', '.join(names)}: {note}"


def _cell(series: Series | None) -> str:
    if series is None or not series.values:
        return "-"
    how = series.figure.how
    if len(series.values) == 1:
        return how.text(series.median)
    ends = (min(series.values), max(series.values))
    low, high = (how.text(value) for value in (reversed(ends) if how.inverse else ends))
    return f"{how.text(series.median)} ({low} – {high})"


def _ratio(run: Run, key: str, to: str) -> str:
    ours = run.median(key, OURS)
    best = run.best(key)
    other = (best[1] if best else None) if to == "best" else run.median(key, MACHINE)
    return f"{ours / other:.3g}" if ours is not None and other else ""


def _notes(found: Sequence[Series]) -> dict[str, list[str]]:
    """What there is to say of a case's series: the peers by the note."""
    notes: dict[str, list[str]] = {}
    for series in found:
        for note in notes_of(series):
            names = notes.setdefault(note, [])
            if series.peer not in names:
                names.append(series.peer)
    return notes


def _settings(run: Run) -> Iterator[str]:
    for name, (version, settings) in run.peers.items():
        yield f"- {name} {version}: {settings}"
    scale = {key.removeprefix("scale_"): value for key, value in run.metadata.items() if key.startswith("scale_")}
    yield "- how much a sample runs: " + ", ".join(f"{name} {value:,}" for name, value in scale.items())


def _row(*cells: str) -> str:
    """A row of a Markdown table.

    Example:
        >>> _row("a|b", "c")
        '| a\\\\|b | c |'
    """
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
