"""Qiskit's primitives by themselves, and spread over workers: ``python -m benchmarks.qiskit_runs``.

Each case is run by the stock primitive and by ours in turn, several times; reported are the ratios of the rounds and
their median.  A ratio is stock's time by ours, so that 2 means twice as fast.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

import jobrunner
from jobrunner.qiskit import ParallelEstimator, ParallelSampler, PrimitiveJob, accelerate
from jobrunner.qiskit.cost import constants_of, pub_seconds

__all__ = ["CASES", "circuit", "main"]


def circuit(qubits: int, layers: int, *, measured: int = 0, free: bool = False, seed: int = 0) -> QuantumCircuit:
    """Layers of rotations and of a chain of controlled gates.

    Args:
        qubits: how many.
        layers: how many.
        measured: how many qubits are measured, the first ones.
        free: whether the angles are parameters; else they are drawn.
        seed: of the angles.
    """
    angles: Any = (
        ParameterVector("angle", qubits * layers)
        if free
        else np.random.default_rng(seed).uniform(-np.pi, np.pi, qubits * layers)
    )
    made = QuantumCircuit(qubits, measured)
    for layer in range(layers):
        for qubit in range(qubits):
            made.ry(angles[layer * qubits + qubit], qubit)
        for qubit in range(qubits - 1):
            made.cx(qubit, qubit + 1)
    for qubit in range(measured):
        made.measure(qubit, qubit)
    return made


def many_samples(count: int, measured: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """So many circuits of 16 to 20 qubits, sampled."""
    pubs = [circuit(16 + n % 5, 2, measured=measured or 16 + n % 5, seed=n) for n in range(count)]
    stock, ours = StatevectorSampler(seed=1), ParallelSampler(StatevectorSampler(seed=1))
    return (lambda: stock.run(pubs).result()), (lambda: ours.run(pubs).result())


def many_estimates(count: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """So many circuits of 16 to 20 qubits, an observable of each estimated."""
    pubs = [(circuit(16 + n % 5, 2, seed=n), "Z" * (16 + n % 5)) for n in range(count)]
    stock, ours = StatevectorEstimator(), ParallelEstimator(StatevectorEstimator())
    return (lambda: stock.run(pubs).result()), (lambda: ours.run(pubs).result())


def bindings(count: int, sampled: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """One circuit of 16 qubits with so many sets of parameters."""
    values = np.random.default_rng(0).uniform(-np.pi, np.pi, (count, 32))
    if sampled:
        pub: Any = (circuit(16, 2, measured=8, free=True), values)
        return _both([pub], StatevectorSampler(seed=1), ParallelSampler(StatevectorSampler(seed=1)))
    pub = (circuit(16, 2, free=True), "Z" * 16, values)
    return _both([pub], StatevectorEstimator(), ParallelEstimator(StatevectorEstimator()))


def _both(pubs: list[Any], stock: Any, ours: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    return (lambda: stock.run(pubs).result()), (lambda: ours.run(pubs).result())


def small(qubits: int, layers: int, sampled: bool, how: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A run of one small circuit, by `accelerate` or by a parallel primitive."""
    if sampled:
        pubs: list[Any] = [circuit(qubits, layers, measured=qubits)]
        stock: Any = StatevectorSampler(seed=1)
        spread: Any = ParallelSampler(StatevectorSampler(seed=1))
    else:
        pubs = [(circuit(qubits, layers), "Z" * qubits)]
        stock, spread = StatevectorEstimator(), ParallelEstimator(StatevectorEstimator())
    if how == "spread":
        return _both(pubs, stock, spread)

    def accelerated() -> None:
        with accelerate():
            stock.run(pubs).result()

    return _both(pubs, stock, stock)[0], accelerated


def gradient(parameters: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The gradient of an expectation value over so many parameters, by parameter shifts."""
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_algorithms.gradients import ParamShiftEstimatorGradient

    qubits = 10
    made = circuit(qubits, parameters // qubits, free=True)
    values = np.random.default_rng(0).uniform(-np.pi, np.pi, parameters)
    observable = SparsePauliOp("Z" * qubits)
    stock = ParamShiftEstimatorGradient(StatevectorEstimator())
    ours = ParamShiftEstimatorGradient(ParallelEstimator(StatevectorEstimator()))

    def of(one: Any) -> Callable[[], Any]:
        return lambda: one.run([made], [observable], [values]).result()

    return of(stock), of(ours)


#: What is measured, by name: the two to be compared, made when asked for.
CASES: dict[str, Callable[[], tuple[Callable[[], Any], Callable[[], Any]]]] = {
    "200 circuits of 16 to 20 qubits, sampled": lambda: many_samples(200, 8),
    "10 circuits of 16 to 20 qubits, all qubits sampled": lambda: many_samples(10, 0),
    "200 circuits of 16 to 20 qubits, estimated": lambda: many_estimates(200),
    "200 bindings of 16 qubits, sampled": lambda: bindings(200, True),
    "200 bindings of 16 qubits, estimated": lambda: bindings(200, False),
    "gradient over 40 parameters, 10 qubits": lambda: gradient(40),
    "2 qubits sampled, accelerated": lambda: small(2, 1, True, "accelerate"),
    "2 qubits estimated, accelerated": lambda: small(2, 1, False, "accelerate"),
    "2 qubits sampled, spread": lambda: small(2, 1, True, "spread"),
    "2 qubits estimated, spread": lambda: small(2, 1, False, "spread"),
    "12 qubits sampled, accelerated": lambda: small(12, 2, True, "accelerate"),
    "15 qubits estimated, accelerated": lambda: small(15, 4, False, "accelerate"),
}


#: A round goes on with further turns for so long, where a turn is shorter.
ROUND_SECONDS = 1.0


def compare(by_stock: Callable[[], Any], by_ours: Callable[[], Any], rounds: int) -> Iterator[tuple[float, float]]:
    """Seconds of both in each round, the median of its turns; who begins a turn alternates."""
    turn = 0
    for _ in range(rounds):
        seconds: dict[str, list[float]] = {"stock": [], "ours": []}
        until = time.perf_counter() + ROUND_SECONDS
        while not seconds["ours"] or time.perf_counter() < until:
            pair = [("stock", by_stock), ("ours", by_ours)]
            for name, run in pair if turn % 2 else reversed(pair):
                began = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - began)
            turn += 1
        yield statistics.median(seconds["stock"]), statistics.median(seconds["ours"])


def cancel_seconds(qubits: int) -> tuple[float, bool, int]:
    """Cancel a simulation of so many qubits once its state is being computed.

    Returns:
        Seconds that the cancel took, whether the process is gone, and its memory before, in bytes.
    """
    with accelerate():
        job: Any = StatevectorEstimator().run([(circuit(qubits, 20), "Z" * qubits)])
    assert isinstance(job, PrimitiveJob)
    while not job.running():
        time.sleep(0.01)
    process = psutil.Process(job.report().pid)
    state = 16 << qubits
    while process.memory_info().rss < state:
        time.sleep(0.01)
    memory = process.memory_info().rss
    began = time.perf_counter()
    cancelled = job.cancel()
    seconds = time.perf_counter() - began
    return seconds, cancelled and not process.is_running(), memory


def show_costs() -> None:
    """How long runs take, and how long they were estimated to."""
    for sampled, primitive in ((True, StatevectorSampler()), (False, StatevectorEstimator())):
        for qubits, layers in ((2, 1), (2, 50), (6, 10), (10, 10), (14, 4), (16, 4), (18, 3)):
            made = circuit(qubits, layers, measured=qubits if sampled else 0)
            pub: Any = SamplerPub.coerce(made, 1024) if sampled else EstimatorPub.coerce((made, "Z" * qubits), 0.0)
            took = []
            for _ in range(5):
                began = time.perf_counter()
                primitive.run([pub]).result()
                took.append(time.perf_counter() - began)
            seconds = statistics.median(took)
            estimated = pub_seconds(pub, constants_of(primitive))
            click.echo(
                f"{type(primitive).__name__}, {qubits} qubits, {layers} layers: {1e3 * seconds:.1f} ms, "
                f"estimated {1e3 * estimated:.1f} ms"
            )


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds of each case.")
@click.option("--case", "wanted", multiple=True, help="Only cases whose name contains this text.")
@click.option("--costs", is_flag=True, help="Instead: the time of runs beside their estimates.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures to this file.")
def main(rounds: int, wanted: tuple[str, ...], costs: bool, path: Path | None) -> None:
    """Compare Qiskit's primitives with the same spread over workers."""
    if costs:
        show_costs()
        return
    figures: dict[str, Any] = {"cores": os.cpu_count(), "cases": {}}
    with jobrunner.LocalExecutor(preload=["qiskit.primitives"]) as executor, jobrunner.use_executor(executor):
        for name, make in CASES.items():
            if wanted and not any(text in name for text in wanted):
                continue
            pairs = list(compare(*make(), rounds))
            ratios = [stock / ours for stock, ours in pairs]
            figures["cases"][name] = {"stock": [one for one, _ in pairs], "ours": [other for _, other in pairs]}
            click.echo(
                f"{name}: {statistics.median(ratios):.2f} × as fast ({' '.join(f'{ratio:.2f}' for ratio in ratios)}); "
                f"stock {statistics.median(one for one, _ in pairs):.3g} s"
            )
        if not wanted or any(text in "cancel" for text in wanted):
            found = [cancel_seconds(24) for _ in range(rounds)]
            figures["cancel"] = [seconds for seconds, _, _ in found]
            click.echo(
                f"cancel of 24 qubits: {1e3 * statistics.median(seconds for seconds, _, _ in found):.0f} ms "
                f"({' '.join(f'{1e3 * seconds:.0f}' for seconds, _, _ in found)}), process gone in "
                f"{sum(gone for _, gone, _ in found)} of {rounds}, memory {found[0][2] >> 20} MiB"
            )
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
