"""A quantum kernel matrix: each entry the overlap of two states, sampled, and all of them one run.

The states are those of the ZZ feature map, and an entry is the share of shots that give zeros after a state was
prepared and the other one undone (V. Havlíček et al., Nature 567, 209 (2019)).  All pairs are parameter bindings of one
circuit, which crosses once to each worker::

    python examples/quantum/kernel.py --plot kernel.png

Needs the extra ``qiskit``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import zz_feature_map
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import Statevector

from jobrunner.qiskit import ParallelSampler

Array = NDArray[np.float64]


def points(count: int, features: int, seed: int = 3) -> tuple[Array, NDArray[np.int64]]:
    """Points in two classes, and their classes: a ball, and the shell around it, scaled to angles.

    Returns:
        Arrays of shape (count, features) and (count,).
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    directions = rng.normal(size=(count, features))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = np.where(labels == 0, rng.uniform(0.0, 0.4, count), rng.uniform(0.7, 1.0, count))
    return np.pi / 2 * (1 + directions * radii[:, None]), labels


def overlap_circuit(features: int) -> QuantumCircuit:
    """Prepares the state of one point, undoes that of another, and measures; 2 * features parameters."""
    one, other = ParameterVector("x", features), ParameterVector("y", features)
    feature_map = zz_feature_map(features, reps=2)
    circuit = feature_map.assign_parameters(one)
    circuit.compose(feature_map.assign_parameters(other).inverse(), inplace=True)
    circuit.measure_all()
    return circuit


def kernel_matrix(sampler: Any, data: Array, shots: int = 1024) -> Array:
    """The kernel of all pairs, sampled.

    Args:
        sampler: a ``BaseSamplerV2``.
        data: of shape (count, features).
        shots: for each pair.

    Returns:
        A symmetric array of shape (count, count), with ones on the diagonal.
    """
    count, features = data.shape
    rows, columns = np.triu_indices(count, k=1)
    circuit = overlap_circuit(features)
    # In the order in which the circuit has its parameters: x before y.
    values = np.concatenate([data[rows], data[columns]], axis=1)
    measured = sampler.run([(circuit, values)], shots=shots).result()[0].data.meas
    kernel = np.eye(count)
    kernel[rows, columns] = [measured.get_int_counts(pair).get(0, 0) / shots for pair in range(len(rows))]
    return np.asarray(np.maximum(kernel, kernel.T))


def exact_kernel(data: Array) -> Array:
    """The kernel of all pairs, from the states themselves."""
    feature_map = zz_feature_map(data.shape[1], reps=2)
    states = np.array([Statevector(feature_map.assign_parameters(point)).data for point in data])
    return np.asarray(np.abs(states.conj() @ states.T) ** 2)


def alignment(kernel: Array, labels: NDArray[np.int64]) -> float:
    """How well a kernel tells the classes apart: the cosine between it and the ideal one (Cristianini et al., 2001)."""
    signs = 2.0 * labels - 1
    ideal = np.outer(signs, signs)
    return float((kernel * ideal).sum() / (np.linalg.norm(kernel) * np.linalg.norm(ideal)))


def plot(kernel: Array, path: Path) -> None:
    """The matrix as an image, the points of a class together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(kernel, vmin=0, vmax=1)
    axes.set(xlabel="point", ylabel="point", title="quantum kernel, sampled")
    figure.colorbar(shown, label="overlap")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Compute the matrix, and compare it with the exact one."""
    parser = argparse.ArgumentParser(description="A quantum kernel matrix, its circuits spread over the cores.")
    parser.add_argument("--count", type=int, default=24, help="points (default: 24)")
    parser.add_argument("--features", type=int, default=4, help="features of a point, and qubits (default: 4)")
    parser.add_argument("--shots", type=int, default=1024, help="shots for each pair (default: 1024)")
    parser.add_argument("--plot", type=Path, help="write the matrix to this image")
    given = parser.parse_args()
    data, labels = points(given.count, given.features)
    kernel = kernel_matrix(ParallelSampler(StatevectorSampler(), seed=1), data, given.shots)
    error = float(np.abs(kernel - exact_kernel(data)).max())
    print(f"{given.count * (given.count - 1) // 2} pairs of {given.features} qubits, {given.shots} shots each")
    print(f"largest error of an entry: {error:.3f}")
    print(f"alignment with the classes: {alignment(kernel, labels):.3f}")
    if given.plot:
        order = np.argsort(labels, kind="stable")
        plot(kernel[np.ix_(order, order)], given.plot)


if __name__ == "__main__":
    main()
