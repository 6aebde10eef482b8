"""`RayExecutor`: jobs in lanes on the nodes of a Ray cluster."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.cluster.link import NodeConfig, Told
from jobrunner.cluster.ray_connection import CONNECT_S, connections, current_connection
from jobrunner.cluster.versions import check_nodes, differences, misfit
from jobrunner.errors import JobRunnerError

__all__ = ["RayExecutor"]

_log = logging.getLogger("jobrunner")

#: How often it is looked for nodes that have come, and for leases that have got their place while some wait.
_NODES_S, _LEASES_S = 1.0, 0.05
#: For how long the head of the cluster may not answer.
_SILENCE_S = 5.0

#: For how long others who wait are let go first.
_DEFERENCE_S = 2.0

_DISCONNECTED = "this process has ended its connection with Ray (ray.shutdown)"


class _RayLink:
    """The connection with a Ray cluster; see `Link`.

    What may take its time is done by a thread of its own, the clerk.
    """

    engine = "ray"
    # Each placement group that waits is tried again and again by Ray, which tells its autoscaler of it.
    most_waiting = 8
    chooses_nodes = False

    def __init__(self, address: str | None, config: NodeConfig, resources: Mapping[str, float]) -> None:
        import ray

        self._config = config
        self._resources = resources
        self._actors: dict[str, Any] = {}
        # The names of the nodes that have told of themselves; a dict for its order.
        self._useful: dict[str, None] = {}
        # By Ray's ids: the names of the nodes that have lanes, or were found to be of no use.
        self._names: dict[str, str] = {}
        self._resources_of: dict[str, dict[str, float]] = {}
        self._groups: dict[int, Any] = {}
        self._placed: set[int] = set()
        # Leases that are asked for later, with their threads: others' turn is first.
        self._deferred: dict[int, tuple[int, float]] = {}
        # Guards the change of these two: whoever makes it lets go of the connection.
        self._ending = threading.Lock()
        self._closing = self._lost = False
        self._errands: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()
        # Set when there is nothing more to wait for.
        self._pause = threading.Event()
        self._clerk = threading.Thread(target=self._work, name="jobrunner-ray-clerk", daemon=True)
        self._connection = connections.begin(address)
        self.address = str(ray.get_runtime_context().gcs_address)

    # --- what the keeper asks for ---

    def start(self, told: Told) -> None:
        self._told: Told = told
        descriptions = {}
        for name, lanes in self._find_nodes().items():
            description = self._described(name, lanes)
            if description is not None:
                descriptions[name] = description
        check_nodes(descriptions)
        for name, description in descriptions.items():
            self._take_node(name, description)
        self._clerk.start()
        threading.Thread(target=self._watch, name="jobrunner-ray-watch", daemon=True).start()

    def post(self, node: str, operations: list[tuple[Any, ...]]) -> None:
        actor = self._actors.get(node)
        if actor is None or self._is_cut_off():
            return  # the keeper is told, or was

        def carried_out(done: Any) -> None:
            failure = _failure(done)
            if failure is None:
                self._told.posted(node)
            else:
                self._doubt(node, actor, failure)

        try:
            answer = actor.post.remote(operations).future()
        except Exception as error:
            if _is_full(error) and any(operation[0] == "job" for operation in operations):
                self._told.unsent(node, operations, _in_words(error))
                self._told.posted(node)
            else:
                self._doubt(node, actor, _in_words(error))
            return
        answer.add_done_callback(carried_out)

    def ask_lease(self, lease: int, threads: int, places: Collection[str] | None) -> None:
        # Ray chooses by CPUs and resources; where it chose a node that won't do, another lease is asked for.
        self._errands.put((self._ask_lease, (lease, threads)))

    def release_lease(self, lease: int) -> None:
        self._errands.put((self._release_lease, (lease,)))

    def put(self, parts: Sequence[memoryview]) -> Any:
        import ray

        return ray.put([bytes(part) for part in parts])

    def drop(self, data: Any) -> None:
        """Nothing: the store lets go of what nobody has a reference to."""

    def close(self) -> None:
        import ray

        with self._ending:
            self._closing = True
        self._stop()
        if self._clerk.is_alive():
            self._clerk.join(CONNECT_S)
        if self._lost:
            return
        try:
            if not self._is_connected():
                return
            self._close_lanes()
            for actor in list(self._actors.values()):
                _try(ray.kill, actor)
            for group in list(self._groups.values()):
                _remove(group)
        finally:
            connections.end(self._connection)

    def _close_lanes(self) -> None:
        """Have the lanes of all nodes end, with what runs in them; waits for it for a while."""
        import ray

        actors = list(self._actors.values())
        closed = [answer for actor in actors if (answer := _try(actor.close.remote)) is not None]
        if closed:
            _try(ray.wait, closed, num_returns=len(closed), timeout=CONNECT_S)

    def _is_connected(self) -> bool:
        """Whether the connection is there still: asked for something without one, Ray starts a cluster."""
        return current_connection() == self._connection

    def _is_cut_off(self) -> bool:
        """Whether the connection is there no more; the keeper is told so."""
        if self._is_connected():
            return False
        self._lose(_DISCONNECTED)
        return True

    def _stop(self) -> None:
        """Have the threads come to their ends."""
        self._pause.set()
        self._errands.put((_nothing, ()))

    # --- the clerk's thread ---

    def _work(self) -> None:
        while not self._closing:
            waiting = len(self._placed) < len(self._groups) or self._deferred
            try:
                what, args = self._errands.get(timeout=_LEASES_S if waiting else None)
            except queue.Empty:
                what, args = self._look_for_leases, ()
            while not self._head_listens():
                # The watch finds out whether it is gone for good.
                if self._pause.wait(_LEASES_S):
                    return
            if self._is_cut_off():
                return
            try:
                what(*args)
            except Exception as error:
                self._lose(f"{type(error).__name__}: {error}")
                return

    def _ask_lease(self, lease: int, threads: int) -> None:
        if self._others_wait(self._find_groups()):
            self._deferred[lease] = threads, time.monotonic()
        else:
            self._make_group(lease, threads)

    def _find_groups(self) -> Mapping[str, tuple[str, list[str]]]:
        """All placement groups: state and nodes, by id; empty where nobody tells.

        Asked of a node: Ray ends a process whose own call of the head is under way when the connection is closed.
        """
        for name in list(self._useful):
            actor = self._actors.get(name)
            if actor is None or self._closing or not self._is_connected():
                continue
            try:
                groups: Mapping[str, tuple[str, list[str]]] = actor.groups.remote().future().result(CONNECT_S)
            except Exception:
                _log.debug("a Ray node does not tell of placement groups", exc_info=True)
            else:
                return groups
        return {}

    def _others_wait(self, groups: Mapping[str, tuple[str, list[str]]]) -> bool:
        """Whether others' placement groups wait, which Ray tries again now and then, but a new one at once."""
        ours = {group.id.hex() for group in self._groups.values()}
        return any(state == "PENDING" and name not in ours for name, (state, _) in groups.items())

    def _make_group(self, lease: int, threads: int) -> None:
        from ray.util import placement_group

        self._groups[lease] = placement_group([{"CPU": threads, **self._resources}], strategy="PACK")

    def _release_lease(self, lease: int) -> None:
        self._deferred.pop(lease, None)
        group = self._groups.pop(lease, None)
        self._placed.discard(lease)
        if group is not None:
            _remove(group)

    def _look_for_leases(self) -> None:
        groups = self._find_groups()
        if self._deferred:
            patience = _DEFERENCE_S if self._others_wait(groups) else 0.0
            for lease, (threads, since) in list(self._deferred.items()):
                if time.monotonic() - since >= patience:
                    del self._deferred[lease]
                    self._make_group(lease, threads)
        for lease, group in list(self._groups.items()):
            state, nodes = groups.get(group.id.hex(), ("", []))
            if lease not in self._placed and state == "CREATED":
                # A node that has just come is known when the watch has found it.
                name = self._names.get(nodes[0])
                if name is not None:
                    self._placed.add(lease)
                    self._told.leased(lease, name)

    # --- the watch's thread ---

    def _watch(self) -> None:
        """Notice nodes that come, and that the head is gone though nothing is said to it."""
        while not self._closing:
            if not self._head_answers():
                self._lose(f"its head has not answered for {_SILENCE_S:g} s")
                return
            if self._is_cut_off():
                return
            try:
                for name, lanes in self._find_nodes().items():
                    self._greet(name, lanes)
            except Exception as error:
                self._lose(f"{type(error).__name__}: {error}")
                return
            self._pause.wait(_NODES_S)

    def _find_nodes(self) -> dict[str, Any]:
        """The nodes that are not known, with an actor for lanes on each, which may not be possible."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from jobrunner.cluster.ray_node import Lanes

        made = {}
        for node in ray.nodes():
            identity, cores = node["NodeID"], int(node["Resources"].get("CPU", 0))
            if not node["Alive"] or identity in self._names or not cores:
                continue
            name = f"{node['NodeManagerAddress']}/{identity[:8]}"
            self._names[identity], self._resources_of[name] = name, dict(node["Resources"])
            actor = ray.remote(Lanes).options(
                num_cpus=0,
                max_concurrency=4,
                scheduling_strategy=NodeAffinitySchedulingStrategy(identity, soft=False),
            )
            self._actors[name] = made[name] = actor.remote(cores, self._config)
        return made

    def _described(self, name: str, lanes: Any) -> dict[str, Any] | None:
        """What a node that was there from the beginning says of itself; None: it is going.

        Raises:
            JobRunnerError: there can't be lanes on it.
        """
        import ray

        try:
            description = ray.get(lanes.describe.remote(), timeout=60)
        except Exception as error:
            self._forget(name)
            if isinstance(error, ray.exceptions.RayActorError) and not _fails_to_start(error):
                _log.warning("Ray node %s is not used: %s", name, _in_words(error))
                return None
            raise JobRunnerError(
                f"Ray node {name} can't have lanes: {type(error).__name__}: {error}. jobrunner must be installed "
                "where Ray's workers run, in the same version as here."
            ) from error
        return {**description, "resources": self._resources_of[name]}

    def _greet(self, name: str, lanes: Any) -> None:
        """Use a node that has come later, if it can have lanes; waits for nothing."""

        def take(done: Any) -> None:
            failure = _failure(done)
            why = failure if failure is not None else misfit(done.result())
            if why is not None:
                _log.warning("Ray node %s is not used: %s", name, why)
                if failure is not None and not _fails_to_start(done.exception()):
                    self._forget(name)  # it may be another time
                return
            description = {**done.result(), "resources": self._resources_of[name]}
            for difference in differences(description):
                _log.info("Ray node %s: %s", name, difference)
            self._take_node(name, description)

        try:
            lanes.describe.remote().future().add_done_callback(take)
        except Exception as error:
            _log.warning("Ray node %s is not used: %s", name, _in_words(error))
            self._forget(name)

    def _forget(self, name: str) -> None:
        """A node has no lanes any more; if it is there still, it gets new ones."""
        self._actors.pop(name, None)
        self._useful.pop(name, None)
        for identity in [one for one, other in list(self._names.items()) if other == name]:
            self._names.pop(identity, None)

    def _take_node(self, name: str, description: Mapping[str, Any]) -> None:
        self._useful[name] = None
        self._told.node_up(name, description)
        self._collect(name)

    def _collect(self, name: str) -> None:
        """Pass on what happens at a node, until that is gone; goes on from each answer to the next."""
        actor = self._actors.get(name)
        if actor is None or self._closing:
            return
        if self._is_cut_off():
            return

        def take(done: Any) -> None:
            failure = _failure(done)
            events = None if failure is not None else done.result()
            if self._closing:
                return
            if events is None:
                if _is_full(done.exception()):
                    self._tell_undelivered(name, actor, str(failure))
                else:
                    self._doubt(name, actor, failure or "it has ended its lanes")
                return
            if self._actors.get(name) is not actor:
                return  # it was given up
            if events:
                self._told.events(name, events)
            self._collect(name)

        try:
            actor.collect.remote().future().add_done_callback(take)
        except Exception as error:
            self._doubt(name, actor, _in_words(error))

    def _tell_undelivered(self, name: str, actor: Any, why: str) -> None:
        """Ray had no room for what a node has told: go on without what of it is large."""

        def take(done: Any) -> None:
            if done.exception() is None and done.result():
                self._collect(name)
            else:
                self._doubt(name, actor, why)

        try:
            actor.undelivered.remote(why).future().add_done_callback(take)
        except Exception as error:
            self._doubt(name, actor, _in_words(error))

    def _doubt(self, name: str, actor: Any, why: str) -> None:
        """A node's actor does not answer: find out whether it is that node, or the whole cluster, that is gone."""
        import ray

        def find_out() -> None:
            if not self._head_answers():
                self._lose(f"its head does not answer, nor does node {name} ({why})")
            elif self._is_cut_off():
                return
            elif not self._closing:
                with self._ending:
                    if self._actors.get(name) is not actor:
                        return  # another doubt has been before
                    del self._actors[name]
                # It may be out of reach only, for a while: nothing is to go on there.
                _try(ray.kill, actor)
                self._told.node_down(name, why)
                self._forget(name)

        threading.Thread(target=find_out, name="jobrunner-ray-doubt", daemon=True).start()

    def _head_answers(self) -> bool:
        """Whether there is a head.

        Asked of its port, not of Ray: a call that Ray tries again and again, until another head is there at the same
        address, has Ray end the process.
        """
        until = time.monotonic() + _SILENCE_S
        while not self._head_listens():
            if self._pause.wait(0.5) or time.monotonic() > until:
                return False
        return True

    def _head_listens(self) -> bool:
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_SILENCE_S / 3).close()
        except OSError:
            return False
        return True

    def _lose(self, why: str) -> None:
        with self._ending:
            if self._closing:
                return
            self._closing = self._lost = True
        self._stop()
        self._told.lost(why)
        threading.Thread(target=self._let_go, name="jobrunner-ray-end", daemon=True).start()

    def _let_go(self) -> None:
        """Let go of a connection that is lost: Ray ends a process that goes on having it, after a minute."""
        # What is asked for without a connection, Ray asks of another cluster, or one that it starts.
        if self._clerk.is_alive():
            self._clerk.join(2 * CONNECT_S)
        if self._is_connected():
            # Nodes whose head is gone go after a minute; without it, they can be spoken with meanwhile.
            self._close_lanes()
        connections.end(self._connection)


def _failure(done: Any) -> str | None:
    """What a call of an actor's came to, in words; None: it went well."""
    error = done.exception()
    return None if error is None else _in_words(error)


def _fails_to_start(error: BaseException | None) -> bool:
    """Whether an actor can't be made, so that trying once more is in vain."""
    return isinstance(getattr(error, "__cause__", None), ImportError) or any(
        text in str(error) for text in ("ModuleNotFoundError", "ImportError", "creation task")
    )


def _in_words(error: BaseException) -> str:
    """An error of Ray's in a line: without its traceback, and its advice."""
    error = getattr(error, "cause", None) or error
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}".rstrip(": ")


def _is_full(error: BaseException | None) -> bool:
    """Whether there is no room in Ray's store, nor on the disk that it falls back to."""
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError

    return isinstance(getattr(error, "cause", None) or error, (ObjectStoreFullError, OutOfDiskError))


def _nothing() -> None:
    """An errand that only wakes the clerk."""


def _remove(group: Any) -> None:
    from ray.util import remove_placement_group

    _try(remove_placement_group, group)


def _try(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what is in vain where the cluster is going too; None where it was."""
    try:
        return call(*args, **kwargs)
    except Exception:
        _log.debug("Ray could not do %r", call, exc_info=True)
        return None


def _import_ray() -> None:
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"RayExecutor needs Ray, which can't be imported ({error}): pip install 'jobrunner[ray]'"
        ) from error


class RayExecutor(ClusterExecutor):
    """Runs jobs on a Ray cluster, each in a process of its own on one of its nodes.

    A job on the cluster is what it is with `LocalExecutor`: `cancel` ends its processes on the remote machine, time and
    memory limits, reports, output and statuses mean the same, and its death is its alone.  An actor on each node holds
    worker processes of jobrunner's.  Ray says where there is room: for each job that runs at a time a placement
    group reserves `threads` CPUs and `resources`, so that other users of the cluster, and its autoscaler, are served as
    usual.

    Args:
        address: of the cluster's head (``"10.0.0.1:6379"``), ``"auto"`` for the one that runs on this machine, or
            ``"local"`` to start one; default: the one this process is connected with, or of ``RAY_ADDRESS``, or "auto".
        time_limit: as for `LocalExecutor`, and so are all options that are not described here.
        memory_limit: bytes, or text; at most what a node has.
        retries: further attempts after the worker died or the node was lost, and after the exception types in
            `retry_on`.
        retry_on: exception types that are retried too.
        threads: BLAS/OpenMP threads that a job may use, and CPUs of Ray's that it takes up.
        grace: seconds between a polite interrupt inside the job and the end of its processes.
        capture_output: whether what the job prints goes to its report instead of the caller's own streams.
        relay_logs: whether a job's warnings and log records reach the caller.
        max_workers: how many jobs run at a time; default: as many as there are CPUs in the cluster.
        max_pending: how many jobs may wait before `submit` blocks; None: no bound.
        resources: custom resources of Ray's, that each job takes up, such as ``{"GPU": 1}``.
        upload: Python files, packages' directories, or archives of such, which jobs import on the nodes.
        idle_timeout: seconds after which an idle worker process leaves its node; None: never.
        max_jobs_per_worker: jobs after which a worker process is replaced; None: never.
        spare_workers: idle worker processes kept ready on each node.
        initializer: called in each worker process before its first job.
        initargs: its arguments.
        env: environment variables of the worker processes.
        preload: names of modules that worker processes import before their first job.
        max_worker_growth: bytes, or text: a worker process whose memory at rest has grown by more is replaced.

    Raises:
        ImportError: Ray is not installed.
        JobRunnerError: no cluster answers within ten seconds; or its nodes have another version of Python or of
            jobrunner, or none.
        TypeError, ValueError: the address or an option is not what it must be; the message names it.

    Example:
        >>> with RayExecutor("local") as executor:                                               # doctest: +SKIP
        ...     executor.submit(pow, 2, 10).result()
        1024
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        resources: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        if address is not None and not isinstance(address, str):
            raise TypeError(f"address must be text, such as '10.0.0.1:6379' or 'auto', not {address!r}")
        config = self._configure(options)
        needed = self._check_resources(resources)
        _import_ray()
        self._begin(_RayLink(address, config, needed), needed)
