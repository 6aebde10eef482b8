"""Jobs on a cluster, ours and the engine's own tasks, in one run: ``python -m benchmarks.clusters``.

Starts a Dask cluster (a scheduler and two workers of one thread) and a Ray cluster (two nodes of one CPU) on this
machine, and has each run the same functions as plain tasks and as jobs, in turn.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from tests.clusters import cluster_of, connect

__all__ = ["main"]

#: By name: for how long each job keeps a core busy, in seconds, and how many there are.
LENGTHS: dict[str, tuple[float, int]] = {"no-op": (0.0, 1000), "1 ms": (0.001, 500), "10 ms": (0.01, 200)}


def busy(seconds: float, number: int) -> int:
    """Keep a core busy for so long."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return number


def plain_dask(address: str) -> tuple[Callable[[float, int], list[int]], Callable[[], None]]:
    """Runs so many jobs as Dask's own tasks; and what ends that."""
    from distributed import Client

    client = Client(address, set_as_default=False)

    def run(seconds: float, count: int) -> list[int]:
        found: list[int] = client.gather(client.map(busy, [seconds] * count, range(count), pure=False))
        return found

    return run, client.close


def plain_ray(address: str) -> tuple[Callable[[float, int], list[int]], Callable[[], None]]:
    """Runs so many jobs as Ray's own tasks; this process is connected already."""
    import ray

    task = ray.remote(busy)

    def run(seconds: float, count: int) -> list[int]:
        found: list[int] = ray.get([task.remote(seconds, number) for number in range(count)])
        return found

    return run, lambda: None


def is_free(engine: str) -> bool:
    """Whether all cores of the cluster are free, as far as the engine tells."""
    if engine == "dask":
        return True
    import ray

    return bool(ray.available_resources().get("CPU") == ray.cluster_resources().get("CPU"))


def compare(
    theirs: Callable[[], Any], ours: Callable[[], Any], clear: Callable[[], Any], rounds: int
) -> Iterator[tuple[float, float]]:
    """Seconds of both in each round; who begins alternates, and each begins on a cluster that is `clear`ed."""
    for number in range(rounds):
        seconds = {}
        pair = [("theirs", theirs), ("ours", ours)]
        for name, run in pair if number % 2 else reversed(pair):
            clear()
            began = time.perf_counter()
            run()
            seconds[name] = time.perf_counter() - began
        yield seconds["theirs"], seconds["ours"]


def measure(engine: str, rounds: int) -> dict[str, Any]:
    """All figures of one engine."""
    figures: dict[str, Any] = {}
    with cluster_of(engine) as cluster, connect(engine, cluster.address) as executor:
        run, end = (plain_dask if engine == "dask" else plain_ray)(cluster.address)

        def jobs(seconds: float, count: int) -> list[int]:
            futures = [executor.submit(busy, seconds, number) for number in range(count)]
            return [future.result() for future in futures]

        def clear() -> None:
            # Leases hold the cluster's cores, and so do, for a moment, the workers of Ray's own tasks.
            while executor.stats()["workers"] or not is_free(engine):
                time.sleep(0.05)

        for name, (seconds, count) in LENGTHS.items():
            # Workers are started, and functions known.
            assert run(seconds, 50) == jobs(seconds, 50) == list(range(50))
            pairs = list(
                compare(lambda: run(seconds, count), lambda: jobs(seconds, count), clear, rounds)  # noqa: B023
            )
            ratios = [theirs / ours for theirs, ours in pairs]
            figures[name] = {"count": count, "theirs": [one for one, _ in pairs], "ours": [other for _, other in pairs]}
            click.echo(
                f"{engine}, {name}: {statistics.median(ratios):.2f} × as many a second as its own tasks "
                f"({' '.join(f'{ratio:.2f}' for ratio in ratios)}); "
                f"{count / statistics.median(one for _, one in pairs):,.0f} a second against "
                f"{count / statistics.median(one for one, _ in pairs):,.0f}"
            )
        trips = []
        for number in range(200):
            began = time.perf_counter()
            executor.submit(busy, 0.0, number).result()
            trips.append(time.perf_counter() - began)
        began = time.perf_counter()
        futures = [executor.submit(busy, 0.0, number) for number in range(2000)]
        submitted = time.perf_counter() - began
        for future in futures:
            future.result()
        figures["round trip"], figures["submit"] = statistics.median(trips), submitted / 2000
        click.echo(
            f"{engine}: round trip {1e3 * figures['round trip']:.1f} ms, {1e6 * figures['submit']:.0f} µs of the "
            "calling thread for each submit"
        )
        end()
    return figures


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds of each case.")
@click.option("--engine", "engines", multiple=True, type=click.Choice(["dask", "ray"]), help="Only this engine.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to this file.")
def main(rounds: int, engines: tuple[str, ...], path: Path | None) -> None:
    """Compare jobs on a cluster with its engine's own tasks."""
    figures = {engine: measure(engine, rounds) for engine in engines or ("dask", "ray")}
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
