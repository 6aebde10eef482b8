"""The jobs and nodes of one executor on a cluster, and what is decided of them.  The keeper's thread alone.

Guarantees:

- a job is at one node at a time, and is begun at most ``1 + retries`` times: what was sent to a node that is lost may
  have begun, and counts as an attempt; what was not sent goes to another;
- a job is sent to a node where it waits for none but those that its own lease was sent before it;
- a job that takes long is sent only to a lease that has nothing else, so that no other is lost with it; of shorter ones
  a lease has a little more, as `Lengths` says;
- CANCELLED is told when the node has said that nothing of the job is alive; where its node, place or cluster is lost
  before that, nobody knows: it ends as what was lost, and is not tried again;
- when the cluster is lost, every job is told so.

Nothing here waits, nor runs the user's code.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import math
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jobrunner.cluster.errors import (
    evicted,
    lost_cluster,
    lost_node,
    names_missing_module,
    remedy_for_missing_module,
    too_large,
    undelivered,
)
from jobrunner.cluster.forwarder import WRITTEN_BYTES
from jobrunner.cluster.job import ClusterJob, State
from jobrunner.cluster.leases import Leases
from jobrunner.cluster.lengths import Lengths
from jobrunner.cluster.link import Link
from jobrunner.cluster.queues import FAIR_S, Queues
from jobrunner.cluster.records import KnownNode, Lease, Precedence
from jobrunner.cluster.room import Room
from jobrunner.errors import (
    JobError,
    JobRunnerError,
    MemoryLimitExceeded,
    SerializationError,
    WorkerDiedError,
)
from jobrunner.executors.future import CANCELLED, Settlement
from jobrunner.executors.notes import pass_on
from jobrunner.executors.services import run_callback, services
from jobrunner.options import JobOptions
from jobrunner.parcel import APART_BYTES, Parcel
from jobrunner.report import JobOutput
from jobrunner.serialization import load_exception
from jobrunner.sharing import Shared

__all__ = ["Ledger"]

_log = logging.getLogger("jobrunner")

#: Jobs that no node has been large enough for are refused when none has come or gone for so long.
_SETTLED_S = 10.0
#: A node that has not said what became of a cancel after so long does not answer.
_STUCK_S = 8.0


class Ledger:
    """The jobs and nodes of one executor.

    Args:
        link: the connection with the engine.
        max_workers: how many leases may have jobs at a time; None: as many as there are.
        room: of the jobs that wait to be sent.
        later: has the keeper's thread make a call; for what becomes known in another.

    Attributes:
        counts: how many jobs ended how.
        running: how many were seen to run, and are at their node still.
        nodes: descriptions of the nodes, by name; replaced, never changed.
        seen: one of each size that has ever been there, with its name, by cores and bytes; replaced, never changed.
        nodes_lost: how many went though they had jobs.
        lost: why the cluster can't be reached any more; None: it can.
        leases: those that the engine has given, or is to give.

    All but `leases` may be read by any thread.
    """

    def __init__(self, link: Link, max_workers: int | None, room: Room, later: Callable[..., None]) -> None:
        self._link = link
        self._engine = link.engine
        self._max_workers = max_workers
        self._room = room
        self._later = later
        self.counts = {"done": 0, "failed": 0, "cancelled": 0}
        self.running = 0
        self.nodes: dict[str, Mapping[str, Any]] = {}
        self.seen: dict[tuple[int, int], Mapping[str, Any]] = {}
        self.nodes_lost = 0
        self.lost: str | None = None
        self._nodes: dict[str, KnownNode] = {}
        self._queues = Queues()
        self.leases = Leases(link, max_workers, self._nodes, self._queues)
        self._unfinished: set[ClusterJob] = set()
        self._orders = itertools.count(1)
        self._lengths = Lengths()
        self._data: dict[int, Any] = {}
        # When a node has come or gone, and when jobs that no node is large enough for are refused.
        self._changed = time.monotonic()
        self._refusing: float | None = None
        # When cancels are taken for lost.
        self._ending: dict[ClusterJob, float] = {}
        # Whether what has not started is to be cancelled.
        self._turns_away = False

    @property
    def unfinished(self) -> int:
        """How many jobs are not over."""
        return len(self._unfinished)

    def has_fitted(self, threads: int, memory: int) -> bool:
        """Whether a node is there, or was, that a job of so many threads and bytes could run on."""
        return any(threads <= node["threads"] and memory <= node["memory"] for node in self.seen.values())

    def proceed(self) -> None:
        """Do what follows from what has come, and is due."""
        self._look_at_cancels()
        self._refuse_too_large()
        precedence = self.leases.precedence()
        self._assign(precedence)
        if self.lost is None:
            # What was sent may have been the next.
            self.leases.keep(self.leases.precedence(), time.monotonic())
        for node in list(self._nodes.values()):
            self._flush(node)

    def patience(self) -> float | None:
        """After how many seconds there is something to do though nothing comes; None: never."""
        now = time.monotonic()
        due = [*self.leases.due(now), *self._ending.values()]
        if self._refusing is not None:
            due.append(self._refusing)
        if len(self._queues.kinds()) > 1:
            due.append(now + FAIR_S)
        return max(0.0, min(due) - now) if due else None

    # --- jobs ---

    def hold(self, job: ClusterJob) -> None:
        """Take a job that waits for others; `enqueue` or `fail` follows."""
        if job.state is State.NEW:
            job.state = State.HELD
            self._unfinished.add(job)

    def enqueue(self, job: ClusterJob) -> None:
        """Take a job, new or held, to be sent when its turn comes."""
        if job.state is State.FINAL:  # cancelled while it was held
            self._room.leave()
            return
        self._unfinished.add(job)
        if self.lost is not None:
            self._room.leave()
            self._finish(job, Settlement(error=lost_cluster(job, self.lost)))
            return
        self._queue(job)

    def _queue(self, job: ClusterJob) -> None:
        job.state = State.QUEUED
        job.node = job.lease = None
        self._queues.push(job)

    def _requeue(self, job: ClusterJob) -> None:
        """Back to its place, where it counts as waiting again; or over, where a cancel was on its way."""
        if job.cancelling:
            self._finish(job, CANCELLED)
            return
        self._room.enter(at_once=True)
        job.seen_running = job.asked_back = False
        self._queue(job)

    def fail(self, job: ClusterJob, error: JobRunnerError) -> None:
        """Let a job fail that is not over yet."""
        if job.state is not State.FINAL:
            job.cause = str(error)
            self._finish(job, Settlement(error=error))

    def _finish(self, job: ClusterJob, settlement: Settlement) -> None:
        if job.state is State.QUEUED:
            self._room.leave()
            self._queues.left(job)
        job.state = State.FINAL
        if job.finished is None:
            job.finished = time.time()
        job.body, job.buffers, job.shared = b"", (), ()
        job.cancelling = settlement is CANCELLED
        self._unfinished.discard(job)
        self.counts["cancelled" if settlement is CANCELLED else "done" if settlement.ok else "failed"] += 1
        future = job.future
        if future is None:
            return
        if settlement is CANCELLED or not (job.ticket or job.spoke):
            future.settle(settlement)
            return
        # After what it printed is written, and what it logged is passed on: callbacks are begun in order.
        writer = services().writer
        if job.ticket > writer.done:
            writer.put(lambda: run_callback(lambda: future.settle(settlement)))
        else:
            run_callback(lambda: future.settle(settlement))

    def cancel(self, job: ClusterJob) -> None:
        """End a job: it is told as cancelled once nothing of it is alive."""
        if job.state is State.FINAL:
            return
        node = self._nodes.get(job.node) if job.node is not None else None
        if job.state is State.SENT and node is not None:
            if job.cancelling:
                return
            job.cancelling = True
            unsent = len(node.outbox)
            node.outbox = [one for one in node.outbox if not (one[0] == "job" and one[1] == job.order)]
            if len(node.outbox) == unsent:
                node.outbox.append(("cancel", job.order))
                self._ending[job] = time.monotonic() + _STUCK_S
                return
            self._leave(job, node)
            job.attempts -= 1
        self._finish(job, CANCELLED)

    def _look_at_cancels(self) -> None:
        """Tell who waits for a cancel that its node does not answer."""
        now = time.monotonic()
        for job, due in list(self._ending.items()):
            if job.state is State.FINAL:
                del self._ending[job]
            elif now >= due:
                del self._ending[job]
                job.stuck = True
                if job.future is not None:
                    job.future.look_again()

    def _leave(self, job: ClusterJob, node: KnownNode) -> None:
        """A job is at its node no more."""
        node.remove(job)
        self.running -= job.seen_running
        lease = self.leases.get(job.lease)
        if lease is not None:
            lease.remove(job)

    # --- sending ---

    def _refuse_too_large(self) -> None:
        """Let jobs fail that are too large for every node that has ever been there.

        Where one of them was large enough, it may come back, and while nodes come and go, another may be: jobs wait.
        """
        now = time.monotonic()
        too_large_ones = [
            (threads, memory)
            for threads in (self._queues.kinds() if self.seen else ())
            for memory in self._queues.needs(threads)
            if not self.has_fitted(threads, memory)
        ]
        self._refusing = self._changed + _SETTLED_S if too_large_ones else None
        if self._refusing is not None and now >= self._refusing:
            self._refusing = None
            for threads, memory in too_large_ones:
                for job in self._queues.waiting(threads, memory):
                    self.fail(job, too_large(job, list(self.seen.values())))

    def _assign(self, precedence: Precedence) -> None:
        """Send jobs to the leases that have room for them."""
        now = time.monotonic()
        vacancies = self.leases.vacancies()
        for threads in self._queues.kinds():
            leases = self.leases.open(threads, precedence, now)
            if not leases:
                continue
            # Not all to the first of them.
            fair = -(-(self._queues.count(threads) + sum(len(lease.jobs) for lease in leases)) // len(leases))
            for lease in leases:
                was_idle = not lease.jobs
                if was_idle and vacancies < 1:
                    continue
                self._fill(lease, fair, precedence)
                vacancies -= was_idle and bool(lease.jobs)

    def _fill(self, lease: Lease, fair: int, precedence: Precedence) -> None:
        """Send a lease what it may have of the jobs that wait, its fair share at the most."""
        node, needs = lease.node, self._queues.needs(lease.threads)
        assert node is not None
        if not needs or not node.has_room(lease.threads, min(needs), lease.number):
            return
        passed = []
        while (job := self._queues.head(lease.threads)) is not None:
            depth = self._depth(job)
            if len(lease.jobs) >= min(depth, lease.depth, fair):
                break
            has_room = node.has_room(lease.threads, job.options.memory_bytes, lease.number)
            if not has_room and precedence.keeps(node, job):
                break
            entry = self._queues.pop(lease.threads)
            if has_room:
                lease.depth = min(lease.depth, depth)
                self._send(job, lease)
            else:
                passed.append(entry)  # for another node, or later
        self._queues.put_back(lease.threads, passed)

    def _depth(self, job: ClusterJob) -> int:
        """How many jobs like this one a lease may have at a time."""
        if self._max_workers is not None and any(node.cores > 1 for node in self._nodes.values()):
            return 1  # a node has the jobs of a lease run side by side
        return self._lengths.most_at_once(job.name, job.options.retries)

    def _send(self, job: ClusterJob, lease: Lease) -> None:
        node = lease.node
        assert node is not None
        self._room.leave()
        self._queues.left(job)
        job.state = State.SENT
        job.node, job.lease, job.order = node.name, lease.number, next(self._orders)
        job.sent = time.monotonic()
        job.attempts += 1
        if job.attempts > 1:
            job.fields = {}
        node.add(job)
        lease.jobs.add(job)
        for shared in job.shared:
            try:
                self._share(shared, node)
            except Exception as error:
                self._leave(job, node)
                why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                self.fail(job, undelivered(job, "a shared argument", shared.nbytes, self._engine, why))
                return
        buffers = [pickle.PickleBuffer(buffer) for buffer in job.buffers]
        body: Any = job.body if len(job.body) < APART_BYTES else pickle.PickleBuffer(job.body)
        numbers = [shared.number for shared in job.shared]
        facts = (job.job_id, job.name)
        node.outbox.append(("job", job.order, lease.number, facts, _told(job.options), body, buffers, numbers))

    def _share(self, shared: Shared[Any], node: KnownNode) -> None:
        if shared.number in node.shares:
            return
        data = self._data.get(shared.number)
        if data is None:
            parts = shared.parts()
            small = shared.nbytes < APART_BYTES
            data = [bytes(part) for part in parts] if small else self._link.put(parts)
            self._data[shared.number] = data
            shared.on_gone(self._share_gone)
        node.shares.add(shared.number)
        node.outbox.append(("share", shared.number, data))

    def _share_gone(self, number: int) -> None:
        """Nobody holds a shared object's handle any more; takes no lock."""
        self._later(self._unshare, number)

    def _unshare(self, number: int) -> None:
        data = self._data.pop(number, None)
        for node in self._nodes.values():
            if number in node.shares:
                node.shares.discard(number)
                node.outbox.append(("forget", number))
        if data is not None and not isinstance(data, list):
            self._link.drop(data)

    def _flush(self, node: KnownNode) -> None:
        if node.outbox and not node.posting:
            node.posting = True
            operations, node.outbox = node.outbox[: node.most], [] if node.most is None else node.outbox[node.most :]
            node.most = None
            self._link.post(node.name, operations)

    def posted(self, name: str) -> None:
        """See `Told.posted`."""
        node = self._nodes.get(name)
        if node is not None:
            node.posting = False

    def unsent(self, name: str, operations: Sequence[tuple[Any, ...]], why: str) -> None:
        """Operations were too large: what is large among them fails, the rest is sent again.

        Where none is large, they are too many: half of them go first.
        """
        node = self._nodes.get(name)
        if node is None:
            return
        rest = []
        for operation in operations:
            job = node.jobs.get(operation[1]) if operation[0] == "job" else None
            if job is None or (job.argument_bytes < APART_BYTES and len(operations) > 1):
                rest.append(operation)
                continue
            job.attempts -= 1
            self._turn_away(job, node, undelivered(job, "the call", job.argument_bytes, self._engine, why))
        if len(rest) == len(operations):
            node.most = len(rest) // 2
        node.outbox = [*rest, *node.outbox]

    def refused(self, name: str, operations: Sequence[tuple[Any, ...]], why: str) -> None:
        """See `Told.refused`."""
        node = self._nodes.get(name)
        if node is None:
            return
        for operation in operations:
            if operation[0] == "share":
                node.shares.discard(operation[1])
            job = node.jobs.get(operation[1]) if operation[0] == "job" else None
            if job is not None:
                self._turn_away(job, node, JobError(f"node {node} can't have lanes: {why}", job_id=job.job_id))

    def _turn_away(self, job: ClusterJob, node: KnownNode, error: JobRunnerError) -> None:
        """A job that was sent can't be carried: it fails, or is cancelled where that was on its way."""
        self._leave(job, node)
        if job.cancelling:
            self._finish(job, CANCELLED)
        else:
            self.fail(job, error)

    # --- leases and nodes ---

    def lease_failed(self, number: int, why: str | None) -> None:
        """See `Told.lease_failed`."""
        threads = self.leases.failed(number, why)
        for job in () if threads is None else self._queues.waiting(threads):
            self.fail(job, JobError(f"the cluster gives no place to run it: {why}", job_id=job.job_id))

    def node_up(self, name: str, description: Mapping[str, Any]) -> None:
        """See `Told.node_up`."""
        if name not in self._nodes:
            self._nodes[name] = KnownNode(name, description)
            self._changed = time.monotonic()
            self.seen = {**self.seen, (description["threads"], description["memory"]): {**description, "name": name}}
            self.nodes = {**self.nodes, name: description}
            self.leases.node_has_come(name)
            _log.info("node %s has come, with %s cores", self._nodes[name], description["cores"])

    def node_down(self, name: str, why: str) -> None:
        """See `Told.node_down`."""
        node = self._nodes.pop(name, None)
        if node is None:
            return
        self._changed = time.monotonic()
        self.nodes = {other: told for other, told in self.nodes.items() if other != name}
        if node.jobs:
            self.nodes_lost += 1
            _log.warning("node %s is lost: %s", node, why)
        else:
            _log.info("node %s has gone: %s", node, why)
        self.leases.node_has_gone(name)
        unsent = {one[1] for one in node.outbox if one[0] == "job"}
        for order, job in list(node.jobs.items()):
            self._leave(job, node)
            self._note_printed(job, node)
            if order in unsent:
                job.attempts -= 1
                self._requeue(job)
            else:
                job.fields = {"host": node.host, **job.fields}
                self._lost(job, f"node {node} was lost ({why})", lost_node(job, str(node), why))

    def lose(self, why: str) -> None:
        """The cluster is gone."""
        if self.lost is not None:
            return
        self.lost = f"the {self._engine} cluster at {self._link.address} can't be reached any more: {why}"
        _log.warning("%s", self.lost)
        self._nodes.clear()
        self.running = 0
        self.nodes = {}
        self.leases.clear()
        for job in list(self._unfinished):
            error = lost_cluster(job, self.lost)
            if job.cancelling:
                self._lost(job, self.lost, error)
            else:
                self._finish(job, Settlement(error=error))
        self._queues.clear()

    def _lost(self, job: ClusterJob, why: str, error: JobRunnerError) -> None:
        """What a job ran on is lost under it: nobody knows whether its processes are alive."""
        if job.cancelling:  # no cancel is to be believed that was not answered, and nobody wants it run again
            job.cause = f"{why} before it had said that the job, which was being cancelled, has ended"
            self._finish(job, Settlement(error=error))
        else:
            self._died(job, why, error)

    def _died(self, job: ClusterJob, why: str, error: JobRunnerError, data: bytes | None = None) -> None:
        """A job's process, or its node, ended under it."""
        retried = not isinstance(error, MemoryLimitExceeded) or isinstance(error, job.options.retry_on)
        if retried and job.attempts <= job.options.retries:
            self._rerun(job, why)
            return
        job.cause = why
        self._finish(job, Settlement(data=data, error=error))

    def _rerun(self, job: ClusterJob, why: str) -> None:
        job.reruns.append(f"attempt {job.attempts}: {why}")
        _log.info("job %s is run again: %s", job.job_id, why)
        self._requeue(job)

    # --- what nodes tell ---

    def take_events(self, name: str, events: Sequence[tuple[Any, ...]]) -> None:
        """See `Told.events`."""
        node = self._nodes.get(name)
        if node is None:
            return
        for kind, *facts in events:
            if kind == "printed":
                self._take_printed(node, *facts)
                continue
            order = facts[0]
            job = node.jobs.get(order)
            if job is None or job.state is not State.SENT:
                continue
            if kind == "outcome":
                self._take_outcome(job, node, *facts[1:])
            elif kind == "running":
                self._take_fields(job, node, facts[1])
                node.saw_running(job)
                self.running += not job.seen_running
                job.seen_running, job.seen = True, time.monotonic()
                lease = self.leases.get(job.lease)
                if lease is not None:
                    lease.running.add(job)
            elif kind == "note":
                _, body, pid = facts
                job.spoke = True
                self._pass_on(bytes(body), job.job_id, pid)
            elif kind == "cancelled":
                if facts[1]:
                    self._leave(job, node)
                    self._finish(job, CANCELLED)
                else:
                    job.stuck = True
                    if job.future is not None:
                        job.future.look_again()
            elif kind == "back":
                self._leave(job, node)
                job.attempts -= 1
                job.cancelling |= self._turns_away
                self._requeue(job)
            elif kind == "evicted":
                self.leases.close(job.lease)
                self._leave(job, node)
                self._note_printed(job, node)
                why = f"{self._engine} has taken its place on node {node} away"
                self._lost(job, why, evicted(job, why))
            elif kind == "too large":
                nbytes, why, fields, number = facts[1:]
                self._take_fields(job, node, fields)
                self._note_printed(job, node, number)
                self._turn_away(job, node, undelivered(job, "the result", nbytes, self._engine, why))
            elif kind == "refused":
                self._leave(job, node)
                self.fail(job, JobError(f"node {node} can't run job {job.job_id}: {facts[1]}", job_id=job.job_id))

    def _take_printed(self, node: KnownNode, stream: int, data: Any, number: int) -> None:
        """Have what was printed at a node be written; and the node be told that, once it is much."""
        writer = services().writer
        ticket = writer.print(stream, bytes(data), node)
        while node.printed and node.printed[0][1] <= writer.done:
            node.printed.popleft()
        node.printed.append((number, ticket))
        node.printed_bytes += len(data)
        if node.printed_bytes >= WRITTEN_BYTES:
            nbytes, node.printed_bytes = node.printed_bytes, 0
            writer.put(lambda: self._later(self._written, node, nbytes))

    def _written(self, node: KnownNode, nbytes: int) -> None:
        if self._nodes.get(node.name) is node:
            node.outbox.append(("written", nbytes))

    def _note_printed(self, job: ClusterJob, node: KnownNode, number: float = math.inf) -> None:
        """Note with a job that is over up to where what it has printed must be written before that is told.

        Args:
            job: the job.
            node: where it was.
            number: of the last thing there that it may have printed; inf: any of them.
        """
        count = bisect.bisect_right(node.printed, number, key=lambda one: one[0])
        if count:
            job.ticket = node.printed[count - 1][1]

    def _pass_on(self, body: bytes, job_id: str, pid: int) -> None:
        run_callback(lambda: pass_on(body, job_id, pid))

    def _take_fields(self, job: ClusterJob, node: KnownNode, fields: Mapping[str, Any]) -> None:
        job.fields.update((name, value) for name, value in fields.items() if value is not None)
        for name in ("started_at", "finished_at"):
            if node.ahead and fields.get(name) is not None:
                job.fields[name] -= node.ahead

    def _take_outcome(
        self,
        job: ClusterJob,
        node: KnownNode,
        ok: bool,
        data: Any,
        buffers: Sequence[Any],
        pickled_error: bytes | None,
        fields: Mapping[str, Any],
        printed: tuple[str, str] | None,
        number: int,
    ) -> None:
        self._leave(job, node)
        self._note_printed(job, node, number)
        self._take_fields(job, node, fields)
        job.printed = None if printed is None else JobOutput(*printed)
        run_s = fields.get("run_s")
        if run_s is not None:
            self._lengths.took(job.name, run_s)
        payload = None if data is None else data if isinstance(data, bytes) else bytes(data)
        if pickled_error is not None:
            error: JobRunnerError = pickle.loads(pickled_error)  # noqa: S301 (one of our own classes, from our node)
            error.args = (f"{error} It ran on node {node}.", *error.args[1:])
            why = f"{fields.get('cause') or 'its worker died'} on node {node}"
            if isinstance(error, (WorkerDiedError, *job.options.retry_on)):
                self._died(job, why, error, payload)
            else:
                job.cause = why
                self._finish(job, Settlement(data=payload, error=error))
            return
        if not ok and payload is not None:
            self._take_raised(job, node, payload, str(fields.get("cause")))
            return
        settled: bytes | Parcel | None = payload
        if buffers and payload is not None:
            settled = Parcel(payload, [_writable(buffer) for buffer in buffers])
        self._finish(job, Settlement(ok, settled))

    def _take_raised(self, job: ClusterJob, node: KnownNode, data: bytes, cause: str) -> None:
        """What a job raised: it may be to retry, or want explaining; which only its exception tells."""
        retryable = bool(job.options.retry_on) and job.attempts <= job.options.retries
        if not retryable and not names_missing_module(cause):
            self._finish(job, Settlement(False, data))
            return
        job.state = State.DECIDING

        def decide() -> None:
            error = load_exception(data)
            retry = retryable and isinstance(error, job.options.retry_on)
            remedy = None if retry else remedy_for_missing_module(error, str(node), self._engine)
            self._later(self._decided, job, retry, error, data, remedy, f"{cause} on node {node}")

        run_callback(decide)

    def _decided(
        self, job: ClusterJob, retry: bool, error: BaseException, data: bytes, remedy: str | None, why: str
    ) -> None:
        if job.state is not State.DECIDING:
            return
        if retry:
            self._rerun(job, why)
            return
        settlement = Settlement(False, data)
        if remedy is not None:
            job.cause = f"{why}; {remedy}"
            if isinstance(error, SerializationError):
                told = f"the call of job {job.job_id} ({job.name}) can't be rebuilt: {remedy}"
                settlement = Settlement(data=data, error=SerializationError(told, job_id=job.job_id))
        self._finish(job, settlement)

    # --- the end ---

    def close(self, cancel_waiting: bool, cancel_all: bool) -> None:
        """No more jobs come: cancel those that wait, or all."""
        if not (cancel_waiting or cancel_all):
            return
        self._turns_away = True
        # The last first: none that waits is to start when one that runs has ended.
        for job in sorted(self._unfinished, key=lambda job: job.seq, reverse=True):
            if cancel_all or job.state in (State.QUEUED, State.HELD):
                self.cancel(job)
            elif job.state is State.SENT and not (job.seen_running or job.asked_back):
                # It may have started, and then goes on.
                node = self._nodes.get(job.node or "")
                if node is not None:
                    job.asked_back = True
                    node.outbox.append(("take back", job.order))


def _told(options: JobOptions) -> dict[str, Any]:
    """The options that a node is to keep; it neither retries nor orders."""
    told = {
        name: getattr(options, name)
        for name in ("time_limit", "memory_limit", "threads", "grace", "capture_output", "relay_logs")
    }
    return {name: value for name, value in told.items() if value != getattr(_DEFAULTS, name)}


_DEFAULTS = JobOptions()


def _writable(buffer: Any) -> memoryview:
    """A result's buffer, for its owner to write to."""
    view = memoryview(buffer)
    return memoryview(bytearray(view)) if view.readonly else view.cast("B")
