"""Real simulations, some tens of milliseconds each; what they need is imported when they run."""

from __future__ import annotations

import importlib

__all__ = ["circuits", "ising"]

_QUBITS = 10
_DEPTH = 12


def ising(seed: int) -> float:
    """The energy of a small Ising lattice at its critical temperature, by Monte Carlo."""
    import numpy as np

    from examples.ising import CRITICAL_TEMPERATURE, simulate

    return simulate(16, CRITICAL_TEMPERATURE, np.random.default_rng(seed), sweeps=80, replicas=16)["energy"]


def circuits(seed: int) -> float:
    """The chance that a random circuit leaves its first qubit up."""
    # By name: a checker may not have it installed.
    random_circuit = importlib.import_module("qiskit.circuit.random").random_circuit
    state = importlib.import_module("qiskit.quantum_info").Statevector
    circuit = random_circuit(_QUBITS, _DEPTH, max_operands=2, seed=seed)
    return float(state(circuit).probabilities([0])[0])
