"""`ParallelSampler` and `ParallelEstimator`: any V2 primitive, its runs spread over workers."""

from __future__ import annotations

import abc
import concurrent.futures
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from qiskit.exceptions import QiskitError
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from jobrunner.errors import JobRunnerError, SerializationError
from jobrunner.executors.base import JobExecutor
from jobrunner.executors.default import get_executor
from jobrunner.executors.foreign import as_job_executor
from jobrunner.job_ids import new_job_id
from jobrunner.qiskit.carrying import carry_object
from jobrunner.qiskit.cost import MIN_SECONDS, constants_of, pub_seconds
from jobrunner.qiskit.cutting import Cut, Part, Piece, cut, take
from jobrunner.qiskit.errors import as_qiskits
from jobrunner.qiskit.parallel_job import ParallelJob
from jobrunner.qiskit.part_job import PartJob
from jobrunner.qiskit.part_run import Source, make_primitive, pack_pub, run_carried, run_part, takes_seed
from jobrunner.qiskit.seeding import own_seed, part_seed, with_seed
from jobrunner.qiskit.settings import Settings
from jobrunner.serialization import Call, dump_call, dump_shared, load_call
from jobrunner.sharing import Shared, share

__all__ = ["ParallelEstimator", "ParallelSampler"]


class _Parallel(abc.ABC):
    """What both have in common."""

    #: The base class of the primitives that it takes.
    _base: type[Any]
    #: Tells `places` that a run is spread over workers by itself.
    spreads_over_workers = True

    def __init__(
        self,
        primitive: Any,
        *,
        executor: concurrent.futures.Executor | None,
        seed: int | None,
        min_seconds: float,
    ) -> None:
        if not isinstance(primitive, self._base) and (isinstance(primitive, type) or not callable(primitive)):
            raise TypeError(
                f"{type(self).__name__} takes a {self._base.__name__}, or a function that makes one, not {primitive!r}"
                + ("; make one of it first" if isinstance(primitive, type) else "")
            )
        self._settings = Settings(executor, min_seconds, asking="executor must be")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0):
            raise ValueError(f"seed must be an int that is not negative, not {seed!r}")
        self._seed = None if seed is None else int(seed)
        self._factory: Callable[..., Any] | None = None
        if isinstance(primitive, self._base):
            self._primitive = primitive
            if seed is not None:
                with_seed(primitive, 0)  # says what to do where that can't be done
        else:
            self._factory = primitive
            self._primitive = make_primitive(primitive, None if seed is None else int(seed))
            if not isinstance(self._primitive, self._base):
                raise TypeError(f"the factory must make a {self._base.__name__}, and made {self._primitive!r}")

    @property
    def primitive(self) -> Any:
        """The primitive whose runs are spread; where it is made by a factory, one that the factory made here."""
        return self._primitive

    def __getattr__(self, name: str) -> Any:
        """What the primitive has beyond (``options``, ``default_shots``, ``backend``), for code that asks for it."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._primitive, name)

    def _run_seed(self) -> int | None:
        """The seed of the next run; None: it is not to be repeated."""
        seed = self._seed if self._seed is not None else own_seed(self._primitive)
        if isinstance(seed, np.random.RandomState):
            return int(seed.randint(1 << 31))
        if isinstance(seed, np.random.Generator):
            # Drawn here, so that the caller's generator goes on, as it does in a run of the primitive itself.
            return int(seed.integers(1 << 63))
        if isinstance(seed, np.random.BitGenerator):
            return int(np.random.Generator(seed).integers(1 << 63))
        if seed is None or isinstance(seed, (int, np.integer)):
            # Aer takes those below 0 as well.
            return None if seed is None else int(seed) if seed >= 0 else int(seed) % (1 << 64)
        # What else NumPy takes for a seed: a sequence of numbers, a SeedSequence.
        return int(np.random.default_rng(seed).integers(1 << 63))

    def _run_pubs(self, pubs: Sequence[Any], options: dict[str, Any], split_shots: bool) -> ParallelJob:
        constants = constants_of(self._primitive)
        seconds = [pub_seconds(pub, constants) for pub in pubs]
        parts = cut(pubs, seconds, split_shots=split_shots)
        base = self._run_seed()
        if base is not None and not (self._factory is not None and takes_seed(self._factory)):
            with_seed(self._primitive, 0)  # says what to do where that can't be done
        seeds = [None if base is None else part_seed(base, number) for number in range(len(parts))]
        if not pubs or sum(seconds) < self._settings.min_seconds:
            return ParallelJob(pubs, parts, self._in_thread(pubs, parts, seeds, options))
        try:
            return ParallelJob(pubs, parts, self._in_workers(pubs, parts, seeds, options))
        except JobRunnerError as error:
            raise as_qiskits(error) from error.__cause__

    def _in_thread(
        self, pubs: Sequence[Any], parts: Sequence[Part], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> list[PartJob]:
        threads = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobrunner-qiskit")
        futures = [
            threads.submit(
                run_part, self._here, [take(pubs[piece.pub], piece.cut) for piece in part.pieces], seed, options
            )
            for part, seed in zip(parts, seeds, strict=True)
        ]
        threads.shutdown(wait=False)
        return [PartJob(future, len(part.pieces)) for part, future in zip(parts, futures, strict=True)]

    def _here(self, seed: int | None) -> Any:
        """The primitive for a part that runs in this process."""
        if self._factory is not None:
            return make_primitive(self._factory, seed)
        return self._primitive if seed is None else with_seed(self._primitive, seed)

    def _in_workers(
        self, pubs: Sequence[Any], parts: Sequence[Part], seeds: Sequence[int | None], options: dict[str, Any]
    ) -> list[PartJob]:
        engine = as_job_executor(get_executor() if self._settings.executor is None else self._settings.executor)
        shares = engine.backend.capabilities.shared_objects
        source = self._source(shares)
        run_id = new_job_id()
        pieces_of = [0] * len(pubs)
        for part in parts:
            for piece in part.pieces:
                pieces_of[piece.pub] += 1
        circuits: dict[int, Shared[Any]] = {}

        def sent(index: int, one: Cut) -> tuple[Any, ...]:
            pub = take(pubs[index], one)
            circuit = pub.circuit
            if shares and pieces_of[index] > 1:
                # Many parts have it: it crosses once for each worker.
                if id(circuit) not in circuits:
                    circuits[id(circuit)] = share(circuit)
                circuit = circuits[id(circuit)]
            return pack_pub(pub, circuit)

        jobs: dict[int, PartJob] = {}
        try:
            # The longest first: none of them is to begin when the others are through.
            for number in sorted(range(len(parts)), key=lambda one: -parts[one].seconds):
                pieces = parts[number].pieces
                try:
                    carried = [sent(piece.pub, piece.cut) for piece in pieces]
                    call = dump_call(run_carried, (source, carried, seeds[number], options, run_id), {})
                except SerializationError:
                    _check_sendable(pubs, pieces)
                    raise
                future = engine.submit_call(dataclasses.replace(call, name=self._name(pieces)))
                again = functools.partial(self._submit_one, engine, _kept(call), pieces) if len(pieces) > 1 else None
                jobs[number] = PartJob(future, len(pieces), again)
        except BaseException:
            for job in jobs.values():
                job.cancel()
            raise
        return [jobs[number] for number in range(len(parts))]

    def _submit_one(self, engine: JobExecutor, call: Call, pieces: Sequence[Piece], index: int) -> Any:
        """Submit one piece of a part as a job of its own, as it was when the part was submitted."""
        shared = {handle.number: handle for handle in call.shared}
        _, (source, carried, seed, *others), _ = load_call(call.payload, (), call.buffers, shared.__getitem__)
        own_seed = None if seed is None else part_seed(seed, index)
        single = dump_call(run_carried, (source, [carried[index]], own_seed, *others), {})
        return engine.submit_call(dataclasses.replace(single, name=self._name(pieces[index : index + 1])))

    def _name(self, pieces: Sequence[Piece]) -> str:
        first, last = pieces[0].pub, pieces[-1].pub
        which = f"PUB {first}" if first == last else f"PUBs {first} to {last}"
        return f"{type(self._primitive).__qualname__}, {which}"

    def _source(self, shares: bool) -> Source:
        """What the workers make the primitive from.

        Raises:
            SerializationError: it can't be sent.
            TypeError: it draws random numbers from a generator which all parts would have a copy of.
        """
        if self._factory is not None:
            return Source(None, self._factory)
        kind = type(self._primitive).__qualname__
        try:
            template, draws = carry_object(self._primitive, kept=False, shared=shares)
        except SerializationError:
            raise
        except Exception as error:
            raise SerializationError(
                f"the primitive, a {kind}, can't be sent to a worker: "
                f"{type(error).__name__}: {str(error).rstrip('. ')}. Pass a factory instead, which makes it there: "
                f"{type(self).__name__}(lambda: {kind}(...))"
            ) from error
        if draws and carry_object(with_seed(self._primitive, 0), kept=False, shared=False)[1]:
            raise TypeError(
                f"a {kind} has a random generator besides its seed, from which all parts would draw the same: pass a "
                f"factory that takes the seed and makes both, such as {type(self).__name__}(lambda seed: "
                f"{kind}(seed=seed), seed=42)"
            )
        return Source(template, None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._primitive!r}>"


def _kept(call: Call) -> Call:
    """A call that stays as it is when its arguments change."""
    return dataclasses.replace(call, buffers=tuple(memoryview(bytes(buffer)) for buffer in call.buffers))


def _check_sendable(pubs: Sequence[Any], pieces: Sequence[Piece]) -> None:
    """Make sure that PUBs can be sent to a worker.

    Raises:
        SerializationError: one can't; the message names it.
    """
    for piece in pieces:
        pub = pubs[piece.pub]
        for name in ("circuit", "observables", "parameter_values"):
            value = getattr(pub, name, None)
            try:
                dump_shared(value)
            except SerializationError as own:
                why = own.__cause__ or own
                raise SerializationError(
                    f"PUB {piece.pub}: its {name.replace('_', ' ')} can't be sent to a worker: {type(why).__name__}: "
                    f"{str(why).rstrip('. ')}. Leave out what can't be pickled, perhaps in the circuit's metadata"
                ) from why


def _coerce(kind: type[Any], pubs: Iterable[Any], value: Any) -> list[Any]:
    """The PUBs as Qiskit has them; an error names the one that is wrong."""
    if isinstance(pubs, (str, bytes)) or not isinstance(pubs, Iterable):
        raise TypeError(f"run takes a list of PUBs, not {pubs!r}: for a single one, run([pub])")
    coerced = []
    for index, pub in enumerate(pubs):
        try:
            coerced.append(kind.coerce(pub, value))
        except (ValueError, TypeError, QiskitError) as error:
            if type(error) in (ValueError, TypeError) or isinstance(error, QiskitError):
                told = getattr(error, "message", None) or str(error)
                raise (type(error) if type(error) in (ValueError, TypeError) else QiskitError)(
                    f"PUB {index}: {told}"
                ) from error
            raise
    return coerced


class ParallelSampler(_Parallel, BaseSamplerV2):
    """A sampler whose runs are spread over the workers of an executor.

    A run's PUBs, and the parameter bindings within a PUB, are cut into parts by their estimated time; each part is a
    job.  The result is what the sampler itself would give: the same classes, shapes and metadata.

    A seeded run gives the same for any number of workers, and on any machine: the seed of each part is drawn from that
    of the run (`seeding.part_seed`), and how a run is cut follows from its circuits alone.  It is not the same as that
    of the sampler by itself, which draws in another order.

    Args:
        sampler: a ``BaseSamplerV2``; or a function that makes one in the worker, where it can't be sent.  A function
            with a parameter ``seed`` is given the seed.
        executor: where the parts run; default: the default executor (`jobrunner.get_executor`) at each run.
        seed: of the runs, not negative; each run has the same.  Default: the sampler's own; from one that has a
            ``numpy.random.Generator``, each run draws its seed.
        split_shots: whether the shots of a PUB may be cut too, where its bindings are too few.  Of use where shots are
            simulated one by one, with noise or measurements amid the circuit.
        min_seconds: a run whose estimated time is below this many seconds stays in a thread of this process.

    Raises:
        TypeError: it is no sampler; or, with `seed`, one of which it is not known where it keeps its seed.
        ValueError: `seed` or `min_seconds` is negative.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> from qiskit.primitives import StatevectorSampler
        >>> bell = QuantumCircuit(2)
        >>> _ = bell.h(0), bell.cx(0, 1), bell.measure_all()
        >>> job = ParallelSampler(StatevectorSampler(), seed=7).run([bell, bell], shots=100)
        >>> [result.data.meas.num_shots for result in job.result()]
        [100, 100]
    """

    _base = BaseSamplerV2

    def __init__(
        self,
        sampler: Any,
        *,
        executor: concurrent.futures.Executor | None = None,
        seed: int | None = None,
        split_shots: bool = False,
        min_seconds: float = MIN_SECONDS,
    ) -> None:
        super().__init__(sampler, executor=executor, seed=seed, min_seconds=min_seconds)
        self._split_shots = split_shots

    def run(self, pubs: Iterable[Any], *, shots: int | None = None) -> ParallelJob:
        """Sample the circuits of PUBs.

        Args:
            pubs: as of ``BaseSamplerV2.run``: circuits, or tuples ``(circuit, parameter values, shots)``.
            shots: for each PUB that doesn't say; default: the sampler's.

        Returns:
            The job, which was submitted; does not wait for it.

        Raises:
            ValueError, TypeError, QiskitError: a PUB is wrong; the message names it.
            SerializationError: the sampler or a PUB can't be sent to a worker.
            ExecutorShutdownError: the executor takes no more jobs.
        """
        wanted = _default(self._primitive, "shots") if shots is None else shots
        coerced = _coerce(SamplerPub, pubs, wanted)
        for index, pub in enumerate(coerced):
            if not pub.circuit.cregs:
                warnings.warn(
                    f"The {index}-th pub's circuit has no output classical registers and so the result will be empty. "
                    "Did you mean to add measurement instructions?",
                    UserWarning,
                    stacklevel=2,
                )
        options = {"shots": shots} if any(pub.shots is None for pub in coerced) else {}
        return self._run_pubs(coerced, options, self._split_shots)


class ParallelEstimator(_Parallel, BaseEstimatorV2):
    """An estimator whose runs are spread over the workers of an executor; see `ParallelSampler`.

    Args:
        estimator: a ``BaseEstimatorV2``; or a function that makes one in the worker, where it can't be sent.
        executor: where the parts run; default: the default executor (`jobrunner.get_executor`) at each run.
        seed: of the runs, not negative; default: the estimator's own.
        min_seconds: a run whose estimated time is below this many seconds stays in a thread of this process.

    Raises:
        TypeError: it is no estimator; or, with `seed`, one of which it is not known where it keeps its seed.
        ValueError: `seed` or `min_seconds` is negative.

    Example:
        >>> from qiskit import QuantumCircuit
        >>> from qiskit.primitives import StatevectorEstimator
        >>> plus = QuantumCircuit(1)
        >>> _ = plus.h(0)
        >>> job = ParallelEstimator(StatevectorEstimator()).run([(plus, ["X", "Z"])])
        >>> job.result()[0].data.evs.round(6).tolist()
        [1.0, 0.0]
    """

    _base = BaseEstimatorV2

    def __init__(
        self,
        estimator: Any,
        *,
        executor: concurrent.futures.Executor | None = None,
        seed: int | None = None,
        min_seconds: float = MIN_SECONDS,
    ) -> None:
        super().__init__(estimator, executor=executor, seed=seed, min_seconds=min_seconds)

    def run(self, pubs: Iterable[Any], *, precision: float | None = None) -> ParallelJob:
        """Estimate the observables of PUBs.

        Args:
            pubs: as of ``BaseEstimatorV2.run``: tuples ``(circuit, observables, parameter values, precision)``.
            precision: for each PUB that doesn't say; default: the estimator's.

        Returns:
            The job, which was submitted; does not wait for it.

        Raises:
            ValueError, TypeError, QiskitError: a PUB is wrong; the message names it.
            SerializationError: the estimator or a PUB can't be sent to a worker.
            ExecutorShutdownError: the executor takes no more jobs.
        """
        wanted = _default(self._primitive, "precision") if precision is None else precision
        coerced = _coerce(EstimatorPub, pubs, wanted)
        options = {"precision": precision} if any(pub.precision is None for pub in coerced) else {}
        return self._run_pubs(coerced, options, split_shots=False)


def _default(primitive: Any, what: str) -> Any:
    """What a primitive takes for a PUB that doesn't say; None: not known here, it will do so itself."""
    name = f"default_{what}"
    found = getattr(primitive, name, None)
    return getattr(getattr(primitive, "options", None), name, None) if found is None else found
