"""The ground state of the hydrogen molecule by VQE, each gradient's circuits spread over the cores.

The Hamiltonian is that of H2 at 0.735 Å in the STO-3G basis, mapped to four qubits by Jordan and Wigner (P. J. J.
O'Malley et al., Phys. Rev. X 6, 031007 (2016)); the ansatz has 32 parameters, so that a gradient by parameter shifts
(M. Schuld et al., Phys. Rev. A 99, 032331 (2019)) takes 64 circuits, which `ParallelEstimator` cuts into parts::

    python examples/quantum/h2_vqe.py --plot h2_vqe.png

Needs the extra ``qiskit``, and qiskit-algorithms.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qiskit.circuit.library import efficient_su2
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms.gradients import ParamShiftEstimatorGradient
from qiskit_algorithms.minimum_eigensolvers import VQE
from qiskit_algorithms.optimizers import L_BFGS_B

from jobrunner.qiskit import ParallelEstimator

#: The energy of the two protons, in hartree.
REPULSION = 0.7199689944489797

#: The chemical accuracy, in hartree.
ACCURACY = 1.6e-3

_TERMS = {
    "IIII": -0.81054798160031430,
    "IIIZ": 0.17218393211855818,
    "IIZI": -0.22575349071287365,
    "IIZZ": 0.12091263243164174,
    "IZII": 0.17218393211855824,
    "IZIZ": 0.16892753854646372,
    "IZZI": 0.16614543242281926,
    "XXXX": 0.04523279999117751,
    "XXYY": 0.04523279999117751,
    "YYXX": 0.04523279999117751,
    "YYYY": 0.04523279999117751,
    "ZIII": -0.22575349071287362,
    "ZIIZ": 0.16614543242281926,
    "ZIZI": 0.17464343053355980,
    "ZZII": 0.12091263243164174,
}


def hamiltonian() -> SparsePauliOp:
    """The electrons' energy, in hartree, on four qubits."""
    return SparsePauliOp.from_list(list(_TERMS.items()))


def exact_energy() -> float:
    """The lowest energy of the molecule, in hartree, by diagonalisation."""
    return float(np.linalg.eigvalsh(hamiltonian().to_matrix())[0]) + REPULSION


def solve(estimator: Any, iterations: int = 60, tell: Callable[[int, float], Any] = lambda *_: None) -> list[float]:
    """The energies that a VQE went through, in hartree.

    Args:
        estimator: a ``BaseEstimatorV2``.
        iterations: the most that the optimiser makes.
        tell: told each evaluation's number and energy.
    """
    ansatz = efficient_su2(4, su2_gates=["ry", "rz"], reps=3, entanglement="linear")
    start = np.random.default_rng(7).uniform(-0.3, 0.3, ansatz.num_parameters)
    energies: list[float] = []

    def note(_: int, __: Any, energy: float, ___: Any) -> None:
        energies.append(energy + REPULSION)
        tell(len(energies), energies[-1])

    solver = VQE(
        estimator,
        ansatz,
        L_BFGS_B(maxiter=iterations),
        gradient=ParamShiftEstimatorGradient(estimator),
        initial_point=start,
        callback=note,
    )
    found = solver.compute_minimum_eigenvalue(hamiltonian())
    energies.append(float(found.eigenvalue.real) + REPULSION)
    return energies


def plot(energies: list[float], path: Path) -> None:
    """The error by evaluation, as an image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(np.array(energies) - exact_energy(), label="VQE")
    axes.axhline(ACCURACY, color="grey", linestyle="--", label="chemical accuracy")
    axes.set(xlabel="evaluation", ylabel="energy above the exact one (hartree)", title="H2 at 0.735 Å")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Solve, and tell how far the energy is from the exact one."""
    parser = argparse.ArgumentParser(description="The ground state of H2 by VQE, with parallel gradients.")
    parser.add_argument("--iterations", type=int, default=60, help="the most that the optimiser makes (default: 60)")
    parser.add_argument("--plot", type=Path, help="write the error by evaluation to this image")
    given = parser.parse_args()

    def tell(number: int, energy: float) -> None:
        if sys.stderr.isatty():
            print(f"\revaluation {number}: {energy:.6f} hartree", end="", file=sys.stderr)

    energies = solve(ParallelEstimator(StatevectorEstimator()), given.iterations, tell)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"exact energy: {exact_energy():.6f} hartree")
    print(f"by VQE: {energies[-1]:.6f} hartree, {1e3 * (energies[-1] - exact_energy()):.3f} millihartree above it")
    if given.plot:
        plot(energies, given.plot)


if __name__ == "__main__":
    main()
