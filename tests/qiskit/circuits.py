"""Small circuits, and functions that jobs of the tests run."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.exceptions import MissingOptionalLibraryError, QiskitError
from qiskit.primitives import StatevectorSampler


def bell() -> QuantumCircuit:
    """Two entangled qubits, measured."""
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


def rotations(qubits: int = 3, *, measured: bool = False) -> QuantumCircuit:
    """A rotation by a parameter of its own on each qubit, and a chain of controlled gates."""
    angles = ParameterVector("angle", qubits)
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(angles[qubit], qubit)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    if measured:
        circuit.measure_all()
    return circuit


def whereabouts() -> tuple[int, str]:
    """The process and the thread that run this."""
    return os.getpid(), threading.current_thread().name


def wait_for(file: str) -> str:
    """Wait until there is a file."""
    while not Path(file).exists():
        time.sleep(0.01)
    return "seen"


def mark_and_wait(mark: str, file: str) -> str:
    """Say that it runs, with its process, then wait for a file."""
    Path(mark).write_text(str(os.getpid()))
    return wait_for(file)


def warn_and_log() -> str:
    """Warn, whatever `python -W` says, and log."""
    warnings.simplefilter("default")
    warnings.warn("of the worker", UserWarning, stacklevel=1)
    logging.getLogger("circuits").warning("said by %s", "the worker")
    return "done"


def fail(text: str) -> None:
    """Raise one of Qiskit's errors."""
    raise QiskitError(text)


def fail_unpicklably() -> None:
    """Raise an error that pickles, and does not unpickle."""
    raise MissingOptionalLibraryError("library", "this test")


def nested(depth: int) -> list[str]:
    """Jobs within jobs; the class of the job of each depth."""
    from qiskit.primitives import PrimitiveJob

    if not depth:
        return []
    job = PrimitiveJob(nested, depth - 1)
    job._submit()
    return [type(job).__module__, *job.result()]


def of_job(job: Any) -> Any:
    """The result of a job that is an argument."""
    return job.result()


def status_of_job(job: Any) -> str:
    """The status of a job that is an argument, and what kind it is."""
    return f"{job.status().name} {type(job).__module__}"


class Counting(StatevectorSampler):
    """A sampler that counts its runs."""

    runs = 0

    def _run(self, pubs: Any) -> Any:
        self.runs += 1
        result = super()._run(pubs)
        result.metadata["runs"] = self.runs
        result.metadata["pid"] = os.getpid()
        return result
