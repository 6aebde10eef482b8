"""How long a run of a primitive takes, estimated from its circuits.

A run of one of Qiskit's simulating primitives takes, for each value it computes,

    a + g · (b + c · 2ⁿ) + s · d + o · 2ᵐ

seconds, with g gates on n qubits, s shots, m measured qubits, and constants that belong to the kind of primitive.
Those below were fitted to runs on one core of a machine of 2023 (`python -m benchmarks.qiskit_runs --costs`).  They
need not be exact: what they decide is how a run is cut into parts, and whether it is worth a journey to another
process.  They are the same on every machine on purpose, as the seeds of a run's parts follow from how it is cut.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from qiskit.circuit import Instruction

__all__ = ["MIN_SECONDS", "Constants", "constants_of", "estimated_seconds", "gate_count", "is_known", "pub_seconds"]

#: Below this many estimated seconds a run stays in a thread: the journey there and back is 1 to 3 ms.
MIN_SECONDS = 0.05


class Constants(NamedTuple):
    """Of one kind of primitive, in seconds.

    Attributes:
        value: for each value that is computed.
        gate: for each gate.
        amplitude: for each gate and amplitude of the state.
        shot: for each shot.
        outcome: for each possible outcome, where all of them are looked at.
    """

    value: float
    gate: float
    amplitude: float
    shot: float
    outcome: float = 0.0


#: By module and name of the primitive's class.
_CONSTANTS: Mapping[tuple[str, str], Constants] = {
    ("qiskit.primitives.statevector_sampler", "StatevectorSampler"): Constants(1e-3, 8e-5, 7e-9, 2.5e-6, 9e-6),
    ("qiskit.primitives.statevector_estimator", "StatevectorEstimator"): Constants(6e-4, 4e-5, 7e-9, 0),
    ("qiskit_aer.primitives.sampler_v2", "SamplerV2"): Constants(2e-3, 2e-5, 2.2e-9, 1.8e-6),
    ("qiskit_aer.primitives.estimator_v2", "EstimatorV2"): Constants(1.5e-3, 3e-5, 2.5e-9, 0),
    ("qiskit.primitives.backend_sampler_v2", "BackendSamplerV2"): Constants(1.5e-3, 2e-5, 2e-9, 1.5e-6),
    ("qiskit.primitives.backend_estimator_v2", "BackendEstimatorV2"): Constants(4e-3, 2e-5, 2e-9, 0),
}

#: What a primitive of another kind is taken for when a run of it is cut.
_OTHER = Constants(2e-3, 2e-5, 2e-9, 2e-6)

#: Shots of a PUB that doesn't say, and qubits beyond which no state is held: such a circuit is simulated otherwise.
_USUAL_SHOTS, _MOST_QUBITS = 1024, 30


def constants_of(primitive: object) -> Constants:
    """The constants of a primitive's kind."""
    return _known(_class_of(primitive)) or _OTHER


def is_known(primitive: object) -> bool:
    """Whether a primitive is exactly of one of the kinds with constants of their own."""
    return _known(_class_of(primitive)) is not None


def _class_of(primitive: object) -> Any:
    return type(primitive)


@lru_cache(maxsize=64)
def _known(kind: Any) -> Constants | None:
    # A subclass may do anything: it is not known.
    return _CONSTANTS.get((kind.__module__, kind.__qualname__))


def estimated_seconds(function: Callable[..., Any] | None, args: tuple[Any, ...]) -> float | None:
    """How long a job of a primitive's will take; None where it is no run of a kind that is known."""
    if not isinstance(function, types.MethodType) or function.__name__ != "_run" or len(args) != 1:
        return None
    constants = _known(_class_of(function.__self__))
    if constants is None or not isinstance(args[0], (list, tuple)):
        return None
    return sum(pub_seconds(pub, constants) for pub in args[0])


def pub_seconds(pub: Any, constants: Constants) -> float:
    """How long a PUB of a sampler or an estimator takes.

    Args:
        pub: a ``SamplerPub`` or an ``EstimatorPub``.
        constants: of the kind of primitive that runs it.
    """
    circuit = pub.circuit
    amplitudes = 2.0 ** min(circuit.num_qubits, _MOST_QUBITS)
    gates = gate_count(circuit)
    if hasattr(pub, "observables"):
        # An expectation value of a Pauli string costs about as much as a gate.
        gates += _terms(pub.observables)
        shots = 0
    else:
        shots = pub.shots or _USUAL_SHOTS
    each = constants.value + gates * (constants.gate + constants.amplitude * amplitudes) + shots * constants.shot
    if constants.outcome and shots:
        each += constants.outcome * 2.0 ** min(circuit.num_clbits, circuit.num_qubits, _MOST_QUBITS)
    return float(math.prod(pub.shape) * each)


def _terms(observables: Any) -> int:
    """The terms of the first of them, which stands for all."""
    shape = observables.shape
    if 0 in shape:
        return 0
    # Before Qiskit 2.1 there is only the other, which later makes a dict of Pauli strings, at a twentieth of a run.
    one = getattr(observables, "slice", observables.__getitem__)
    return len(one((0,) * len(shape)))


def gate_count(circuit: Any) -> int:
    """The gates of a circuit, those within composite ones counted as often as they occur."""
    return sum(number * _gates_within(circuit, name) for name, number in circuit.count_ops().items())


def _gates_within(circuit: Any, name: str) -> int:
    """How many gates one instruction of that name stands for; the first that has it stands for all."""
    if name in _SIMPLE:
        return 1
    operation = next(one.operation for one in circuit.data if one.operation.name == name)
    blocks = getattr(operation, "blocks", ())
    if blocks:  # a loop, or a choice
        times = len(operation.params[0]) if name == "for_loop" else 1
        return max(1, times * sum(map(gate_count, blocks)))
    # Only one that was given to it: to have a unitary decomposed takes seconds.  One that its class makes is left out
    # when it is there too, as an export fills it in: the estimate, and so the seeds of a run's parts, would change.
    given = getattr(type(operation), "_define", None) is Instruction._define
    definition = operation._definition if given else None
    if definition is None:
        # As a matrix on so many qubits it takes that much more than one on a single qubit.
        return int(2 ** min(getattr(operation, "num_qubits", 1), 10))
    return max(1, gate_count(definition))


#: Instructions that stand for one gate each, so that their definition is not looked at.
_SIMPLE = frozenset(
    (
        *("barrier", "cx", "cy", "cz", "ccx", "ch", "cp", "crx", "cry", "crz", "cs", "csdg", "csx", "cswap", "cu"),
        *("delay", "dcx", "ecr", "h", "id", "iswap", "measure", "p", "r", "reset", "rx", "rxx", "ry", "ryy", "rz"),
        *("rzx", "rzz", "s", "sdg", "swap", "sx", "sxdg", "t", "tdg", "u", "u1", "u2", "u3", "x", "xx_minus_yy"),
        *("xx_plus_yy", "y", "z"),
    )
)
