"""The keeper: the thread that has the jobs, nodes and leases of one executor on a cluster.

What it has and decides is its `Ledger`.  Everybody else, the caller's threads and the engine's, puts into its queue
what is to be done; the thread waits for nothing else, and runs no code of the user's.
"""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobrunner.cluster.job import ClusterJob, State
from jobrunner.cluster.ledger import Ledger
from jobrunner.cluster.link import Link
from jobrunner.cluster.room import Room
from jobrunner.errors import ExecutorShutdownError, JobRunnerError
from jobrunner.executors.callbacks import on_callback_thread
from jobrunner.executors.future import in_event_loop
from jobrunner.executors.services import run_callback, services
from jobrunner.options import JobOptions

__all__ = ["Keeper"]

_log = logging.getLogger("jobrunner")


class Keeper:
    """Jobs on a cluster.

    Args:
        link: the connection.
        max_workers: how many leases to ask for at most; None: as many as there are cores, and some more.
        max_pending: how many jobs may wait before `submit` blocks; None: no bound.

    Attributes:
        pid: the process it belongs to.
        engine: the engine's name.
        address: where the cluster is.
        closing: whether no more jobs are taken.
    """

    def __init__(self, link: Link, max_workers: int | None, max_pending: int | None) -> None:
        self.pid = os.getpid()
        self.engine = link.engine
        self.address = link.address
        self.closing = False
        self._link = link
        self._inbox: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()
        # Held while jobs are taken, and while it is said that no more are: what was taken before that is in the queue
        # by then, and the thread does not end without it.
        self._taking = threading.Lock()
        self._over = threading.Event()
        self._seqs = itertools.count(1)
        self._room = Room(max_pending)
        self._ledger = Ledger(link, max_workers, self._room, self._do)
        services().callbacks.have_thread()
        services().register(self)
        self._thread = threading.Thread(target=self._run, name=f"jobrunner-{self.engine}", daemon=True)
        self._thread.start()
        try:
            link.start(self)
        except BaseException:
            self.shut_down()
            self.join()
            raise
        # The nodes that are there are known by now.
        begun = threading.Event()
        self._do(begun.set)
        begun.wait()

    # --- the caller's side; any thread ---

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """Descriptions of the nodes that are there, by name."""
        return self._ledger.nodes

    @property
    def sizes(self) -> Sequence[Mapping[str, Any]]:
        """A description, and the name, of a node of each size that is there, or was and may come back."""
        return list(self._ledger.seen.values())

    def has_fitted(self, threads: int, memory: int) -> bool:
        """Whether one of them could run a job of so many threads and bytes."""
        return self._ledger.has_fitted(threads, memory)

    def new_job(
        self, options: JobOptions, job_id: str, name: str, argument_bytes: int, serialize_s: float
    ) -> ClusterJob:
        """A job that is not handed in yet."""
        return ClusterJob(self, next(self._seqs), options, job_id, name, argument_bytes, serialize_s)

    def check_open(self) -> None:
        """Raise an error where no more jobs are taken."""
        if self._ledger.lost is not None:
            raise ExecutorShutdownError(f"{self._ledger.lost}; make a new executor once it is back")
        if self.closing or self.pid != os.getpid():
            raise ExecutorShutdownError("the executor was shut down: make a new one, or submit before the shutdown")

    def hold(self, job: ClusterJob) -> None:
        """Take a job that waits for others; `submit` or `fail` follows.

        Raises:
            ExecutorShutdownError: no more jobs are taken.
        """
        self._take(job, self._ledger.hold)
        job.admitted = True

    def submit(self, job: ClusterJob, body: bytes) -> None:
        """Hand in a job, new or held.

        Raises:
            JobError: the queue is full, and this thread must not wait.
            ExecutorShutdownError: no more jobs are taken; one that was held is.
        """
        job.body = body
        self._room.enter(at_once=job.admitted)  # one that has waited for other jobs was taken before
        try:
            self._take(job, self._ledger.enqueue)
        except ExecutorShutdownError:
            self._room.leave()
            raise

    def fail(self, job: ClusterJob, error: JobRunnerError) -> None:
        """Let a job that could not be handed in fail.

        Raises:
            ExecutorShutdownError: no more jobs are taken, and it was not held.
        """
        self._take(job, self._ledger.fail, error)

    def _take(self, job: ClusterJob, what: Callable[..., None], *args: Any) -> None:
        """Have the thread take a job, which it will see to its end."""
        if job.admitted:
            self._do(what, job, *args)
            return
        self.check_open()  # before the lock, which in a fork may be held by nobody that is there
        with self._taking:
            self.check_open()
            self._do(what, job, *args)

    def cancel(self, job: ClusterJob) -> bool:
        """Cancel a job; see `JobFuture.cancel`."""
        future = job.future
        if future is None:
            return job.state is State.FINAL and bool(job.cancelling)
        self._do(self._ledger.cancel, job)
        if on_callback_thread() or in_event_loop():
            return True
        return future.cancelled_unless(lambda: job.stuck)

    def stats(self) -> dict[str, int]:
        """How many jobs wait, run and ended how; how many nodes and leases there are, and how many nodes were lost."""
        ledger = self._ledger
        running = ledger.running
        return {
            "queued": max(0, ledger.unfinished - running),
            "running": running,
            **ledger.counts,
            "workers": sum(lease.node is not None for lease in ledger.leases),
            "nodes": len(ledger.nodes),
            "restarts": ledger.nodes_lost,
        }

    def shut_down(self, *, cancel_waiting: bool = False, cancel_all: bool = False) -> None:
        """Take no more jobs."""
        if self.pid != os.getpid():
            return
        with self._taking:
            self.closing = True
        self._room.close()
        self._do(self._ledger.close, cancel_waiting, cancel_all)

    def join(self) -> None:
        """Wait until all is over."""
        if self.pid == os.getpid() and threading.current_thread() is not self._thread:
            self._over.wait()

    def close_at_exit(self) -> None:
        """Run what was submitted, and end."""
        self.shut_down()
        self.join()

    def forsake(self) -> None:
        """In a fork: the cluster knows nothing of this process."""

    def abandon(self) -> None:
        """Nobody can submit any more: end when what was submitted is over; takes no lock, nor needs one."""
        self.closing = True
        self._do(self._ledger.close, False, False)

    # --- what the engine tells; any thread ---

    def node_up(self, node: str, description: Mapping[str, Any]) -> None:
        """A node has come: jobs may go there once it has a lease."""
        self._do(self._ledger.node_up, node, description)

    def node_down(self, node: str, why: str) -> None:
        """A node is gone: its jobs are tried again elsewhere, or fail, and name it with the reason `why`."""
        self._do(self._ledger.node_down, node, why)

    def events(self, node: str, events: Sequence[tuple[Any, ...]]) -> None:
        """A node tells of its jobs, in the order in which it came about; see `Node.collect`."""
        self._do(self._ledger.take_events, node, events)

    def posted(self, node: str) -> None:
        """The message to a node has arrived: the next one may go there."""
        self._do(self._ledger.posted, node)

    def unsent(self, node: str, operations: Sequence[tuple[Any, ...]], why: str) -> None:
        """Operations were too large for the engine: the jobs that they carry fail alone."""
        self._do(self._ledger.unsent, node, operations, why)

    def refused(self, node: str, operations: Sequence[tuple[Any, ...]], why: str) -> None:
        """A node can't have lanes: the jobs that it was sent fail."""
        self._do(self._ledger.refused, node, operations, why)

    def leased(self, lease: int, node: str) -> None:
        """A lease has its place on a node, the first or another one."""
        self._do(self._ledger.leases.placed, lease, node)

    def lease_failed(self, lease: int, why: str | None) -> None:
        """A lease has no place, and will not get one; None: by no fault of its own."""
        self._do(self._ledger.lease_failed, lease, why)

    def lost(self, why: str) -> None:
        """The cluster can't be reached any more: what is not final fails with `ClusterLostError`."""
        self._do(self._ledger.lose, why)

    # --- the keeper's thread ---

    def _do(self, what: Callable[..., None], *args: Any) -> None:
        self._inbox.put((what, args))

    def _run(self) -> None:
        try:
            while not (self.closing and not self._ledger.unfinished and self._inbox.empty()):
                self._turn()
        except Exception as error:
            _log.critical("the keeper of a cluster's jobs has failed: they are lost", exc_info=True)
            self._ledger.lose(f"jobrunner's keeper has failed ({type(error).__name__}: {error}); see the log")
            with self._taking:
                self.closing = True
            self._lose_the_rest()
        services().writer.drain()
        told = threading.Event()
        run_callback(told.set)
        told.wait()
        try:
            self._link.close()
        except Exception:
            _log.warning("the connection with %s can't be closed", self.address, exc_info=True)
        finally:
            self._over.set()

    def _lose_the_rest(self) -> None:
        """Tell the jobs that were handed in meanwhile that they are lost."""
        while not self._inbox.empty():
            what, args = self._inbox.get()
            try:
                what(*args)
            except Exception:
                _log.debug("the keeper has failed, and could not do %r", what, exc_info=True)

    def _turn(self) -> None:
        """Take in what has come, and carry out what follows from it."""
        try:
            what, args = self._inbox.get(timeout=self._ledger.patience())
        except queue.Empty:
            pass
        else:
            what(*args)
            # No more than was there, so that what follows from it is not put off for ever.
            for _ in range(self._inbox.qsize()):
                what, args = self._inbox.get()
                what(*args)
        self._ledger.proceed()
