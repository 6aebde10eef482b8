"""The magnetisation of a quantum Ising chain after a quench, over times and fields: a batch for `jobrunner run`.

The chain starts with all spins up, and evolves by H = -sum Z_i Z_(i+1) - field * sum X_i, its sites in an open line
(P. Pfeuty, Annals of Physics 57, 79 (1970)).  The evolution is cut into second-order Trotter steps (M. Suzuki, Commun.
Math. Phys. 51, 183 (1976)), whose error falls with the square of their length::

    jobrunner run examples/quantum/trotter.toml
    jobrunner report --name trotter

The same from a program, with an image of the result::

    python examples/quantum/trotter.py --plot trotter.png

Needs the extra ``qiskit``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp, Statevector

from jobrunner import Batch, sweep

__all__ = ["chain", "exact_magnetization", "magnetization", "trotter_circuit"]


def trotter_circuit(sites: int, time: float, field: float, step: float) -> QuantumCircuit:
    """The evolution, in second-order steps.

    Args:
        sites: of the chain.
        time: how long, in units of the inverse coupling.
        field: in units of the coupling.
        step: the longest that a step may be, in the unit of time.
    """
    steps = max(1, math.ceil(time / step))
    length = time / steps
    circuit = QuantumCircuit(sites)
    for _ in range(steps):
        circuit.rx(-field * length, range(sites))
        for site in range(sites - 1):
            circuit.rzz(-2 * length, site, site + 1)
        circuit.rx(-field * length, range(sites))
    return circuit


def chain(sites: int, field: float) -> SparsePauliOp:
    """The Hamiltonian, in units of the coupling."""
    bonds = [("ZZ", [site, site + 1], -1.0) for site in range(sites - 1)]
    fields = [("X", [site], -field) for site in range(sites)]
    return SparsePauliOp.from_sparse_list([*bonds, *fields], num_qubits=sites)


def _mean_z(sites: int) -> SparsePauliOp:
    return SparsePauliOp.from_sparse_list([("Z", [site], 1 / sites) for site in range(sites)], num_qubits=sites)


def magnetization(time: float, field: float, sites: int = 12, step: float = 0.05) -> float:
    """The mean of Z over the sites after a time; a point of the batch.

    Args:
        time: since the quench, in units of the inverse coupling.
        field: in units of the coupling.
        sites: of the chain.
        step: the longest Trotter step.
    """
    circuit = trotter_circuit(sites, time, field, step)
    return float(StatevectorEstimator().run([(circuit, _mean_z(sites))]).result()[0].data.evs)


def exact_magnetization(time: float, field: float, sites: int) -> float:
    """The same by diagonalisation, for some sites."""
    energies, states = np.linalg.eigh(chain(sites, field).to_matrix())
    start = np.zeros(2**sites)
    start[0] = 1.0
    evolved = states @ (np.exp(-1j * energies * time) * (states.conj().T @ start))
    return float(Statevector(evolved).expectation_value(_mean_z(sites)).real)


def plot(found: list[tuple[float, float, float]], path: Path) -> None:
    """The magnetisation over times and fields, as an image.

    Args:
        found: (time, field, magnetisation) of each point.
        path: of the image.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for field in sorted({field for _, field, _ in found}):
        line = sorted((time, value) for time, other, value in found if other == field)
        axes.plot(*zip(*line, strict=True), label=f"{field:g}")
    axes.set(xlabel="time (1 / coupling)", ylabel="magnetisation", title="quench of a quantum Ising chain")
    axes.legend(title="field")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the batch, and draw what it came to."""
    parser = argparse.ArgumentParser(description="A quantum Ising chain after a quench, over times and fields.")
    parser.add_argument("--sites", type=int, default=12, help="of the chain (default: 12)")
    parser.add_argument("--store", type=Path, default=Path("jobrunner.db"), help="where results are kept")
    parser.add_argument("--plot", type=Path, help="write the magnetisation to this image")
    given = parser.parse_args()
    times, fields = [0.25 * n for n in range(1, 13)], [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
    batch = Batch(
        "trotter.py:magnetization",
        sweep(time=times, field=fields),
        fixed={"sites": given.sites},
        name="trotter",
        store=given.store,
        directory=Path(__file__).parent,
    )
    summary = batch.run()
    print(f"{summary.done + summary.skipped} points done, {summary.failed} failed")
    if summary.failed:
        raise SystemExit(f"see: jobrunner failures --store {given.store}")
    if given.plot:
        plot([(point["time"], point["field"], value) for point, value in batch.results()], given.plot)


if __name__ == "__main__":
    main()
