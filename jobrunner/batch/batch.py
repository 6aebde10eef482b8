"""`Batch`: one function over many parameter points, kept in a store, run until all is done."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobrunner.backend import describe_machine
from jobrunner.batch.columns import as_columns, free_name
from jobrunner.batch.encoding import storable_text
from jobrunner.batch.identity import identify
from jobrunner.batch.outcomes import Outcome, OutcomeStatus, Summary
from jobrunner.batch.points import Points, as_points, sweep
from jobrunner.batch.progress import Progress, ProgressMode
from jobrunner.batch.records import BatchRecord, Counts, PointRecord
from jobrunner.batch.registry import Description, Registration, Resumption, register
from jobrunner.batch.replicates import aggregate
from jobrunner.batch.run import Policy, StopRequest, run_works
from jobrunner.batch.seeds import Seeding
from jobrunner.batch.store import Store
from jobrunner.batch.store_source import StoreSource
from jobrunner.batch.target import Target, check_parameters, load_target
from jobrunner.batch.values import canonical_json
from jobrunner.errors import SpecError, StoreError
from jobrunner.executors.default import get_executor
from jobrunner.options import JobOptions, UnboundedJobOptions, check_count
from jobrunner.storage.connection import connect
from jobrunner.storage.owners import RUNS

if TYPE_CHECKING:
    import pandas

__all__ = ["DEFAULT_STORE", "Batch"]

DEFAULT_STORE = "jobrunner.db"

#: More than Python writes down as digits unless told to.
_SEED_BITS = 10_000


class Batch:
    """One function over many parameter points, kept in a store, so that it survives whatever ends it.

    `run` runs what is not yet done.  A point whose result is in the store is never run again, however often and by
    however many processes at a time the batch is run; killed at any moment, it goes on where it was.

    Args:
        target: the function, or its name: ``module:function`` or ``path/to/file.py:function``.
        points: what it is called with: `sweep`, `zip_points`, their products, or any iterable of mappings.  The values
            must have a JSON form; the function gets tuples as lists, mappings with sorted keys, and NumPy's
            numbers as Python's.
        name: the batch's name in the store.
        store: the store's file; made, readable by its owner alone, if there is none.
        directory: what the target's name is relative to; default the working directory.
        seed: what every point's own seed is derived from (see `point_seed`); None: the one that the store has, else
            one drawn at random, and stored.
        replicates: how often each point is run, each time with a seed of its own.
        fixed: parameters that are the same for every point; another value at a resume is refused.
        time_limit: seconds that a job may take, as of `LocalExecutor`.
        memory_limit: bytes, or text such as ``"2GiB"``, that a job's processes may use.
        threads: BLAS/OpenMP threads that a job may use, and cores that it takes up.
        grace: seconds between a polite interrupt and the end of a job's processes.
        retries: how often a point is run again after its worker died, with growing pauses.
        max_failures: stop after so many points have failed in one run; None: go on.
        capture_output: whether what jobs print goes to the store (`jobrunner logs`) instead of the terminal.

    Raises:
        SpecError: the points don't fit the function, or something in them is wrong.
        TypeError, ValueError: an option is wrong.

    Example:
        >>> import os, tempfile
        >>> from jobrunner import Batch, sweep
        >>> store = os.path.join(tempfile.mkdtemp(), "powers.db")
        >>> batch = Batch("operator:pow", [{}], name="none", store=store)
        Traceback (most recent call last):
        jobrunner.errors.SpecError: a: pow() takes it by position only; parameters are passed by name
        >>> sevenths = sweep(numerator=[1, 2, 3], denominator=[7])
        >>> batch = Batch("fractions:Fraction", sevenths, name="sevenths", store=store)
        >>> batch.run().done
        3
        >>> batch.run().skipped
        3
        >>> [(point["numerator"], str(value)) for point, value in batch.results()]
        [(1, '1/7'), (2, '2/7'), (3, '3/7')]
    """

    def __init__(
        self,
        target: Callable[..., Any] | str,
        points: Iterable[Mapping[str, Any]],
        *,
        name: str,
        store: str | os.PathLike[str] = DEFAULT_STORE,
        directory: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        replicates: int = 1,
        fixed: Mapping[str, Any] | None = None,
        time_limit: float | None = None,
        memory_limit: int | str | None = None,
        retries: int = 0,
        threads: int = 1,
        grace: float = 0.0,
        max_failures: int | None = None,
        capture_output: bool = True,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name must be a text, not {name!r}")
        if storable_text(name) != name:
            raise ValueError(f"name must be UTF-8 text, not {name!r}")
        if seed is not None and (isinstance(seed, bool) or not hasattr(seed, "__index__")):
            raise TypeError(f"seed must be a whole number or None, not {seed!r}")
        if seed is not None and int(seed).bit_length() > _SEED_BITS:
            raise ValueError(f"seed must have at most {_SEED_BITS} bits, not {int(seed).bit_length()}")
        given = as_points(points)
        # A spec's points have them already.
        missing = {key: [value] for key, value in (fixed or {}).items() if key not in given.names}
        if missing:
            given = given * sweep(**missing)
        for key, value in (fixed or {}).items():
            if key in given.varying() or canonical_json(given[0].get(key)) != canonical_json(value):
                raise SpecError("the parameter is given twice: with the points, and as fixed", key=key)
        self.options, self.policy = _settings(
            {
                "time_limit": time_limit,
                "memory_limit": memory_limit,
                "retries": retries,
                "threads": threads,
                "grace": grace,
                "max_failures": max_failures,
                "capture_output": capture_output,
            }
        )
        self._target = load_target(target, directory=directory) if isinstance(target, str) else _target_of(target)
        check_parameters(self._target, given.names, given.common)
        self._seeding = Seeding.of(self._target.function, given.names, None if seed is None else int(seed))
        self._resumed = False
        self.store = Path(store)
        self.name = name
        self.points = given
        self.replicates = check_count("replicates", replicates)
        self._seed = None if seed is None else int(seed)
        self._fixed = dict(fixed or {})

    @classmethod
    def stored(cls, store: str | os.PathLike[str] = DEFAULT_STORE, name: str | None = None, **options: Any) -> Batch:
        """A batch as a store has it: its function is imported again, its points are those that are stored.

        Args:
            store: the store's file.
            name: the batch's name; None: the only one in the store.
            options: options that are to be others than those stored, as `Batch` has them.

        Raises:
            SpecError: there is no such batch, or its function can't be imported by its name.
            StoreError: the store can't be read, or another user could have written it: its target would be run.
        """
        with Store(store) as opened:
            if opened.distrust is not None:
                raise StoreError(f"its batch is not run: {opened.distrust}", path=str(opened.path))
            record = opened.batch(name)
        if record.directory is None:
            raise SpecError(
                f"the function of batch {record.name!r} is {record.target}, which can't be imported again: run the "
                "program that made the batch",
                file=str(store),
            )
        batch = cls.__new__(cls)
        batch._target = load_target(record.target, directory=record.directory)
        batch._seeding = Seeding.of(batch._target.function, record.parameters, record.seed)
        batch._resumed = True
        batch.store, batch.name = Path(store), record.name
        batch.points, batch.replicates = Points(), record.replicates
        batch.options, batch.policy = _settings({**record.options, **record.policy, **options})
        batch._seed, batch._fixed = record.seed, dict(record.fixed)
        return batch

    def __repr__(self) -> str:
        return f"<Batch {self.name!r} of {self._target.text} in {self.store}>"

    @property
    def target(self) -> Target:
        """The function, with its name."""
        return self._target

    @property
    def takes_seed(self) -> bool:
        """Whether the function gets anything from the batch's seed."""
        return self._seeding.used

    # --- running ---

    def run(
        self,
        executor: concurrent.futures.Executor | None = None,
        progress: ProgressMode = None,
        *,
        fresh: bool = False,
        accept_changes: bool = False,
        retry_failed: bool = False,
        on_outcome: Callable[[Outcome], None] | None = None,
        on_message: Callable[[str], None] | None = None,
        stop: StopRequest | None = None,
    ) -> Summary:
        """Run what is not yet done, and return when all points are final or a stop was requested.

        Points that fail don't raise.  Other processes may run the same batch at the same time: they share the work,
        and each waits for the whole.

        Args:
            executor: where the jobs run; default `get_executor`'s.  It stays open.
            progress: ``True``: a bar on stderr, or in the notebook; ``"plain"``: a line on stderr every 30 seconds;
                False: neither; None: a bar if stderr is a terminal or this a notebook, else nothing.  A class of tqdm's
                (``tqdm.auto.tqdm``): a bar of that, with options if it is a ``functools.partial`` of the class.  Any
                other function: ``function(ended, failed, total)`` is called on this thread with numbers of points, some
                ten times a second at most, and at the end.
            fresh: begin anew; what there is stays in the store under another name.
            accept_changes: go on although the function's source, a fixed parameter or the seed has changed.
            retry_failed: run points again that have failed.
            on_outcome: called with each `Outcome` as its job ends, on this thread.
            on_message: called with each thing that the user should know, such as that a package has another version
                than before; default: a warning.
            stop: a request through it ends the run early: what runs is ended, and runs again with the next run.

        Raises:
            SpecError: the batch in the store is another one: it says what differs, and what can be done.
            StoreError: the store can't be used or written; what was recorded is kept.
        """
        begun = time.monotonic()
        stop = stop or StopRequest()
        if executor is not None and not isinstance(executor, concurrent.futures.Executor):
            raise TypeError(f"executor must be a concurrent.futures.Executor or None, not {executor!r}")
        executor = _configured(get_executor() if executor is None else executor, self.options)
        workers = getattr(getattr(executor, "backend", None), "max_workers", None) or 1
        display = Progress(self.name, progress)

        def prepare(written: int, total: int) -> None:
            display.prepare(written, total)
            if stop.requested and written < total:
                raise _Stopped(total)

        with display, contextlib.ExitStack() as leaving:
            try:
                registration = self._register(
                    Resumption(fresh=fresh, accept_changes=accept_changes, retry_failed=retry_failed), workers, prepare
                )
            except _Stopped as stopped:
                # All that was written of it is taken back: the store is as it was before.
                elapsed_s = time.monotonic() - begun
                total = stopped.total
                return Summary(total=total, done=0, failed=0, cancelled=total, elapsed_s=elapsed_s, stopped=stop.reason)
            # Whatever is raised from here on, this process holds no lease after it.
            leaving.callback(RUNS.end, self.store, registration.runner)
            for message in registration.messages:
                (on_message or _warn)(message)
            batch = registration.batch
            seeding = dataclasses.replace(self._seeding, batch_seed=batch.seed or 0)
            before = self._counts(batch)
            display.begin(batch.total, done=before.done, failed=before.failed, workers=workers)

            def tell(outcome: Outcome) -> None:
                display.advance(outcome)
                if on_outcome is not None:
                    on_outcome(outcome)

            source = StoreSource(self.store, registration, seeding, stop)
            try:
                counts = run_works(
                    self._target.sendable,
                    executor,
                    source,
                    seeding=seeding,
                    policy=self.policy,
                    on_outcome=tell,
                    on_activity=display.show,
                    stop=stop,
                )
            finally:
                source.close()
            after = self._counts(batch)
            display.end(done=after.done, failed=after.failed)
        done = min(counts[OutcomeStatus.DONE], after.done)
        return Summary(
            total=after.total,
            done=done,
            failed=after.failed,
            cancelled=after.total - after.done - after.failed,
            skipped=after.done - done,
            elapsed_s=time.monotonic() - begun,
            stopped=stop.reason,
        )

    def _register(
        self, resumption: Resumption, workers: int, on_progress: Callable[[int, int], object]
    ) -> Registration:
        connection = connect(self.store, write=True, create=True)
        try:
            return register(
                connection,
                self.store,
                None if self._resumed else self._description(),
                resumption,
                name=self.name,
                code=identify(self._target.function) if self._resumed else None,
                workers=workers,
                on_progress=on_progress,
            )
        finally:
            connection.close()

    def _description(self) -> Description:
        return Description(
            name=self.name,
            target=self._target.text,
            directory=self._target.directory,
            points=self.points,
            fixed=self._fixed,
            options=self.options,
            policy=dataclasses.asdict(self.policy),
            seed=self._seed,
            drawn=self._seeding.batch_seed if self._seeding.used else None,
            replicates=self.replicates,
            code=identify(self._target.function),
            machine=describe_machine(),
        )

    # --- reading ---

    def _counts(self, batch: BatchRecord) -> Counts:
        with Store(self.store) as store:
            return store.counts(batch)

    def record(self) -> BatchRecord:
        """The batch as the store has it: its seed, its options, the code's identity.

        Raises:
            SpecError, StoreError: it was never run.
        """
        with Store(self.store) as store:
            return store.batch(self.name)

    def status(self) -> Counts:
        """How many points are in each status, whoever runs them; cheap for a million points.

        Raises:
            SpecError, StoreError: it was never run.
        """
        with Store(self.store) as store:
            return store.counts(store.batch(self.name))

    def results(self) -> Iterator[tuple[dict[str, Any], Any]]:
        """The points that are done with what their function returned, in the points' order.

        With replicates, the value of a point is a dict of mean (``x_mean``) and standard error (``x_sem``) of each
        column over those that are done; see `jobrunner.batch.replicates.aggregate`.

        Yields:
            ``(parameters, value)``.

        Raises:
            SpecError, StoreError: it was never run.
            SerializationError: a stored pickle can't be loaded.
        """
        with Store(self.store) as store:
            yield from stored_results(store, store.batch(self.name))

    def outcomes(self) -> Iterator[PointRecord]:
        """Every point, each replicate, in order, with status, seed, times, error and result.

        Raises:
            SpecError, StoreError: it was never run.
        """
        with Store(self.store) as store:
            yield from store.points(store.batch(self.name), results=True)

    def dataframe(self) -> pandas.DataFrame:
        """The results as a table: a row for each point that is done, in the points' order.

        The columns are the parameters, which are there even while nothing is done, and those of the results, as
        `jobrunner.batch.columns.as_columns` has them: values as they are, so that NaN is a float and a datetime a
        datetime.  A result's column that has a parameter's name becomes ``result.<name>``.  With replicates, a point is
        one row, see `results`.  What became of points that are not done, `outcomes` tells.

        Raises:
            ImportError: pandas is not installed (``pip install 'jobrunner[pandas]'``).
            SpecError, StoreError: it was never run.
            SerializationError: a stored pickle can't be loaded.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("Batch.dataframe() needs pandas: pip install 'jobrunner[pandas]'") from error
        with Store(self.store) as store:
            batch = store.batch(self.name)
            rows = [_row(parameters, value, batch.parameters) for parameters, value in stored_results(store, batch)]
        columns = dict.fromkeys(itertools.chain(batch.parameters, itertools.chain.from_iterable(rows)))
        return pandas.DataFrame(rows, columns=list(columns))


def _row(parameters: Mapping[str, Any], value: Any, names: Iterable[str]) -> dict[str, Any]:
    """A row of a table: a point's parameters, of all those that the batch's points have, and its result."""
    taken, row = set(names), dict(parameters)
    for name, cell in as_columns(value).items():
        free = free_name(name, taken)
        taken.add(free)
        row[free] = cell
    return row


class _Stopped(Exception):  # noqa: N818 - no error, and it stays in here
    """A stop was requested before the points of the batch were stored."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.total = total


def stored_results(store: Store, batch: BatchRecord) -> Iterator[tuple[dict[str, Any], Any]]:
    """See `Batch.results`."""
    done = store.points(batch, "done", results=True)
    if batch.replicates == 1:
        for point in done:
            yield _ordered(point, batch), store.value(point)
        return
    for _, group in itertools.groupby(done, key=lambda point: (point.place or 0) // batch.replicates):
        first = next(group)
        values = (store.value(point) for point in itertools.chain([first], group))
        yield _ordered(first, batch), aggregate(values)


def _ordered(point: PointRecord, batch: BatchRecord) -> dict[str, Any]:
    """A point's parameters in the batch's order."""
    return {name: point.parameters[name] for name in batch.parameters if name in point.parameters}


_POLICY = ("retries", "max_failures")


def _settings(given: Mapping[str, Any]) -> tuple[Mapping[str, Any], Policy]:
    """Options of jobs, and what to do about failures, checked."""
    options = {name: value for name, value in given.items() if name not in _POLICY}
    UnboundedJobOptions(**options)
    most = given["max_failures"]
    retries = check_count("retries", given["retries"], least=0)
    return options, Policy(retries=retries, max_failures=None if most is None else check_count("max_failures", most))


def _target_of(function: Callable[..., Any]) -> Target:
    """The target of a function that was given as an object; with its name, if it can be imported by that again."""
    if not callable(function):
        raise TypeError(f"target must be a function or its name, not {function!r}")
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    found: Any = sys.modules.get(module or "")
    for part in (name or "").split("."):
        found = getattr(found, part, None)
    importable = module != "__main__" and found is function
    directory = str(Path.cwd()) if importable else None
    return Target(text=f"{module}:{name}", function=function, directory=directory)


def _configured(executor: concurrent.futures.Executor, options: Mapping[str, Any]) -> concurrent.futures.Executor:
    """The executor with the options of a batch's jobs.

    Raises:
        TypeError: it can't have them.
        ValueError: one asks for more than there is where it runs jobs.
    """
    plain = JobOptions()
    wanted = {name: value for name, value in options.items() if value != getattr(plain, name)}
    capabilities = getattr(getattr(executor, "backend", None), "capabilities", None)
    if not getattr(capabilities, "capture_output", False):
        wanted.pop("capture_output", None)  # where nothing is captured, jobs print where they do
    if not wanted:
        return executor
    with_options = getattr(executor, "with_options", None)
    if with_options is None:
        raise TypeError(f"{type(executor).__name__} knows no options, and the batch has {', '.join(wanted)}")
    configured: concurrent.futures.Executor = with_options(**wanted)
    return configured


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
