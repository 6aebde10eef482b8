"""`DaskExecutor`: jobs in lanes of a Dask cluster's workers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from jobrunner.cluster.connect import check_reachable, in_time, unreachable
from jobrunner.cluster.dask_connection import (
    START,
    address_of,
    default_place,
    end_client,
    import_distributed,
    is_client,
)
from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.cluster.link import NodeConfig, Told
from jobrunner.cluster.versions import check_nodes, differences, misfit
from jobrunner.errors import JobRunnerError

__all__ = ["DaskExecutor"]

_log = logging.getLogger("jobrunner")

#: Connecting gives up after so many seconds.
_CONNECT_S = 5.0
#: How long workers that end in good order are waited for to be followed by their scheduler.
_PARTING_S = 1.0
#: A worker that has not answered after so long can't be reached from here, though the scheduler can.
_DIRECT_S = 5.0
#: Connections that the client may have; a node takes up to two.
_MOST_CONNECTIONS = 4096
#: A scheduler that has not answered after so long is gone.
_SILENCE_S = 15.0
#: How often it is looked whether a worker that data are sent to, or the scheduler, is there still.
_LOOK_S = 1.0


class _DaskLink:
    """The connection with a Dask cluster; see `Link`.

    Everything that talks with the cluster runs in the event loop of a `distributed.Client` of its own.
    """

    engine = "dask"
    # Its scheduler counts tasks that wait, to say how many workers an adaptive cluster should have.
    most_waiting = 64
    chooses_nodes = True

    def __init__(self, where: Any, config: NodeConfig, resources: Mapping[str, float]) -> None:
        from distributed import Client

        self._session = uuid.uuid4().hex
        self._config = config
        self._resources = resources
        self._leases: dict[int, Any] = {}
        # Those that wait for a place, and may have it on the workers alone that were of use when they were asked for.
        self._narrow: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # The workers that have told of themselves; told to the keeper once all that were there have.
        self._known: dict[str, Mapping[str, Any]] = {}
        self._heard = threading.Condition()
        self._misfits: set[str] = set()
        # The workers that are talked with without the scheduler's help; for the client's loop.
        self._direct: set[str] = set()
        # By worker, what passes on what happens there; for the client's loop, too.
        self._collecting: dict[str, asyncio.Task[None]] = {}
        # By worker, the lanes of it that were given up last: none of them is to be used again.
        self._given_up: dict[str, str] = {}
        self._closing = False
        self.address = address_of(where)
        check_reachable(self.address, "Dask scheduler", START, _CONNECT_S / 2)
        security = getattr(where, "security", None)
        options: dict[str, Any] = {} if security is None else {"security": security}
        options["direct_to_workers"] = where.direct_to_workers if is_client(where) else None
        target = where if hasattr(where, "scheduler_address") and not is_client(where) else self.address
        name = f"jobrunner-{self._session[:8]}"
        # Made in two steps, so that one that can't connect can be told to try no more.
        self._client: Any = Client.__new__(Client)
        connect = functools.partial(
            self._client.__init__,
            target,
            timeout=_CONNECT_S,
            set_as_default=False,
            name=name,
            connection_limit=_MOST_CONNECTIONS,
            **options,
        )
        try:
            in_time(connect, _CONNECT_S + 1)
        except Exception as error:  # whatever something else that listens there may answer
            end_client(self._client)
            if self.address.startswith("tls://") and security is None:
                raise JobRunnerError(
                    f"{self.address} wants certificates, which can't be part of an address ({error}): pass a "
                    "distributed.Client that was made with security=..., or name them in Dask's configuration "
                    "(distributed.comm.tls)"
                ) from error
            raise unreachable(self.address, "Dask scheduler", START, error) from error
        self._loop: asyncio.AbstractEventLoop = self._client.loop.asyncio_loop

    # --- what the keeper asks for ---

    def start(self, told: Told) -> None:
        from jobrunner.cluster.dask_node import NodePlugin, topic_of

        self._told: Told = told
        # Another one at the same address knows nothing of us.
        self._scheduler: str = self._client.scheduler_info()["id"]
        self._client.subscribe_topic(topic_of(self._session), self._take_event)
        try:
            self._client.register_plugin(NodePlugin(self._session, self._config))
        except Exception as error:
            raise JobRunnerError(
                f"the workers of the Dask cluster at {self.address} can't have lanes: {type(error).__name__}: {error}. "
                "jobrunner must be installed where they run, in the same version as here."
            ) from error
        there = set(self._client.nthreads())
        with self._heard:
            self._heard.wait_for(lambda: there <= set(self._known), timeout=_CONNECT_S)
            nodes = dict(self._known)
        check_nodes(nodes)
        self._run(self._watch())

    def post(self, node: str, operations: list[tuple[Any, ...]]) -> None:
        self._run(self._post(node, operations))

    def ask_lease(self, lease: int, threads: int, places: Collection[str] | None) -> None:
        self._run(self._ask_lease(lease, places))

    def release_lease(self, lease: int) -> None:
        self._run(self._release_lease(lease))

    def put(self, parts: Sequence[memoryview]) -> Any:
        # Scattered with the first post that needs it: that may take its time.
        return _Scattered([bytes(part) for part in parts])

    def drop(self, data: Any) -> None:
        data.release()

    def close(self) -> None:
        self._closing = True
        if self._client.status == "running":
            with contextlib.suppress(Exception):  # the cluster may be going too: then the workers end their lanes
                self._client.sync(self._end_lanes)
        self._client.close(timeout=2)

    # --- in the client's loop ---

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        def begin() -> None:
            task = self._loop.create_task(coroutine)
            self._tasks.add(task)
            task.add_done_callback(ended)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._lose(error)  # nothing can be said any more, as where the client was closed

        try:
            self._loop.call_soon_threadsafe(begin)
        except RuntimeError:  # the loop is closed
            coroutine.close()

    async def _end_lanes(self) -> None:
        """Have the workers end their lanes, which takes as long as it takes, if only the scheduler is there still."""
        from jobrunner.cluster.dask_node import topic_of

        ending = asyncio.ensure_future(self._client.scheduler.unregister_worker_plugin(name=topic_of(self._session)))
        while not (await asyncio.wait({ending}, timeout=_LOOK_S))[0]:
            if await self._scheduler_answers() is None:
                ending.cancel()
                return
        ending.result()

    async def _call(self, node: str, incarnation: str, operation: str, **facts: Any) -> Any:
        """Have a worker answer a message that is meant for certain lanes of it.

        Raises:
            _NodeGoneError: it can't.
            OSError: the scheduler can't be reached.
        """
        message = {
            "op": operation,
            "session": self._session,
            "address": node,
            "incarnation": incarnation,
            **facts,
        }
        if node in self._direct:
            try:
                async with self._client.rpc(node) as worker:
                    facts = {name: value for name, value in message.items() if name != "op"}
                    return await getattr(worker, operation)(**facts)
            except Exception as error:
                raise _NodeGoneError(f"{type(error).__name__}: {error}") from error
        answers = await self._client.scheduler.broadcast(msg=message, workers=[node], on_error="return")
        answer = answers.get(node)
        if isinstance(answer, BaseException):
            raise _NodeGoneError(f"{type(answer).__name__}: {answer}") from answer
        return answer

    async def _try_direct(self, node: str, worker: str) -> None:
        """Talk with a worker without the scheduler's help, which costs twice as much, if it can be reached from here.

        Args:
            node: its address.
            worker: its id; what answers at the same address of another network has another.
        """
        with contextlib.suppress(Exception):  # it may be behind a firewall, or gone
            identity = await asyncio.wait_for(self._client.rpc(node).identity(), _DIRECT_S)
            if identity["id"] == worker and node in self._known:
                self._direct.add(node)

    async def _post(self, node: str, operations: list[tuple[Any, ...]]) -> None:
        from jobrunner.cluster.dask_node import GONE, REFUSED, encode

        error = None
        known = self._known.get(node)
        if known is None:
            return  # it was given up meanwhile
        incarnation = known["incarnation"]
        try:
            named = [await self._named(one, node) for one in operations]
            answer = await self._call(node, incarnation, "jobrunner_post", operations=encode(named))
            if isinstance(answer, (list, tuple)):
                # Scattered data that are gone with the worker that had them.
                lost = set(answer)
                named = [await self._named(one, node, lost) for one in operations]
                answer = await self._call(node, incarnation, "jobrunner_post", operations=encode(named))
            if isinstance(answer, str) and answer.startswith(REFUSED):
                self._told.refused(node, operations, answer.removeprefix(REFUSED))
            elif answer != "carried out":
                error = "it has ended its lanes" if answer == GONE else "data can't be had there"
        except _NodeGoneError as gone:
            error = f"it can't be reached: {gone}"
        except Exception as failure:
            self._lose(failure)
            return
        if self._known.get(node) is not known:
            return  # it was given up meanwhile, and may be there again
        if error is None:
            self._told.posted(node)
        else:
            self._forget(node, error)

    async def _named(self, operation: tuple[Any, ...], node: str, lost: Collection[str] = ()) -> tuple[Any, ...]:
        """An operation with the key of scattered data in their place; scattered to `node` if they are nowhere.

        Raises:
            _NodeGoneError: they can't be.
        """
        data = operation[-1]
        if not isinstance(data, _Scattered):
            return operation
        if not data.futures or data.futures[-1].key in lost:
            scattering = self._loop.create_task(
                self._client.scatter([data.parts], workers=[node], hash=False, asynchronous=True)
            )
            # It takes as long as it takes, if only the node is there still.
            while not (await asyncio.wait({scattering}, timeout=_LOOK_S))[0]:
                if node not in self._known:
                    scattering.cancel()
                    raise _NodeGoneError("it went while data were sent there")
            try:
                data.futures += scattering.result()
            except Exception as error:
                raise _NodeGoneError(f"data can't be sent there: {type(error).__name__}: {error}") from error
        return (*operation[:2], data.futures[-1].key)

    async def _collect(self, node: str, incarnation: str) -> None:
        """Pass on what happens at a node, until that is gone."""
        from jobrunner.cluster.dask_node import decode

        pause = 0.0
        while not self._closing:
            try:
                frames = await self._call(node, incarnation, "jobrunner_collect")
            except _NodeGoneError as gone:
                self._forget(node, f"it can't be reached: {gone}")
                return
            except Exception as failure:
                self._lose(failure)
                return
            if frames is None:
                # It may be that all do, with the scheduler as the last: not to be told as a worker's loss.
                await asyncio.sleep(_PARTING_S)
                self._forget(node, "it has ended its lanes")
                return
            if frames and (events := decode(frames)):
                self._told.events(node, events)
                pause = 0.0
            else:
                # A node without lanes answers at once: it has nothing to tell before it is posted to.
                pause = 0.005 if not pause else min(2 * pause, 0.1)
                await asyncio.sleep(pause)

    def _forget(self, node: str, why: str) -> None:
        """A worker is of no use: what comes from there from now on is of lanes that are to end."""
        collecting = self._collecting.pop(node, None)
        if collecting is None:
            return
        if collecting is not asyncio.current_task():
            collecting.cancel()
        self._direct.discard(node)
        self._run(self._give_up(node, why))

    async def _give_up(self, node: str, why: str) -> None:
        # Workers whose scheduler is gone end by themselves; then it is not this one that is lost, but all.
        if self._closing or await self._scheduler_answers() is None:
            return
        incarnation = self._given_up[node] = self._known[node]["incarnation"]
        with self._heard:
            del self._known[node]
        self._told.node_down(node, why)
        self._ask_anew()
        await self._say(node, incarnation, "jobrunner_begin_anew")

    async def _say(self, node: str, incarnation: str, operation: str) -> None:
        """Have a worker be told something, if it is there."""
        with contextlib.suppress(Exception):
            await self._call(node, incarnation, operation)

    def _lose(self, failure: BaseException) -> None:
        if not self._closing:
            self._closing = True
            self._told.lost(f"{type(failure).__name__}: {failure}")
            # It would try to find the scheduler again.
            self._run(self._client._close(fast=True))

    async def _watch(self) -> None:
        """Notice that the scheduler is gone, or has given workers up, though nothing is said to them."""
        missed: set[str] = set()
        while not self._closing and (identity := await self._scheduler_answers()) is not None:
            missing = self._collecting.keys() - identity["workers"].keys()
            for node in missing & missed:
                self._forget(node, "the scheduler has given it up")
            missed = missing
            await asyncio.sleep(2)

    async def _scheduler_answers(self) -> Mapping[str, Any] | None:
        """What the scheduler says of itself, and of its workers; None: it is gone, as the keeper is told."""
        until = self._loop.time() + _SILENCE_S
        try:
            if self._client.scheduler is None:
                raise ConnectionError("Dask has closed the connection, as with its cluster object")
            asking = asyncio.ensure_future(self._client.scheduler.identity())
            # Where nobody listens it is tried again for longer than that takes to be known.
            while not (await asyncio.wait({asking}, timeout=_LOOK_S))[0]:
                if self._client.status != "running" or self._loop.time() > until:
                    asking.cancel()
                    raise ConnectionError("the scheduler does not answer")
            identity: Mapping[str, Any] = asking.result()
            if identity["id"] != self._scheduler:
                raise ConnectionError("another scheduler has taken its place")
        except Exception as failure:
            self._lose(failure)
            return None
        return identity

    def _take_event(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """What a worker tells of itself."""
        _, told = event
        address = told["address"]
        if told["op"] == "lease":
            self._narrow.discard(told["lease"])
            self._told.leased(told["lease"], address)
            return
        description = told["description"]
        incarnation = description.get("incarnation", "")
        if self._given_up.get(address) == incarnation:
            self._run(self._say(address, incarnation, "jobrunner_begin_anew"))
            return
        known = self._known.get(address)
        if known is not None and known.get("incarnation", "") == incarnation:
            if address in self._misfits:
                self._run(self._say(address, incarnation, "jobrunner_rest"))
            return
        if address in self._collecting:
            self._forget(address, "another has taken its place")
        if known is not None and address not in self._misfits:
            return  # until it is known that the other is gone
        self._misfits.discard(address)
        why = misfit(description)
        if why is None:
            for difference in differences(description):
                _log.info("Dask worker %s: %s", address, difference)
            self._told.node_up(address, description)
            self._collecting[address] = asyncio.ensure_future(self._collect(address, incarnation))
            self._ask_anew()
        else:
            _log.warning("Dask worker %s is not used: %s", address, why)
            self._misfits.add(address)
        with self._heard:
            self._known[address] = description
            self._heard.notify_all()
        if self._client.direct_to_workers:
            self._direct.add(address)
        elif self._client.direct_to_workers is None and why is None:
            self._run(self._try_direct(address, description["id"]))

    async def _ask_lease(self, lease: int, places: Collection[str] | None) -> None:
        from jobrunner.cluster.dask_node import hold_lease, lease_key

        key = lease_key(self._session, lease)
        options: dict[str, Any] = {"resources": self._resources} if self._resources else {}
        if places is not None:
            options["workers"] = list(places)
        elif self._misfits:
            fit = [address for address in self._known if address not in self._misfits]
            # An empty list would mean any worker; the scheduler's address is that of none.
            options["workers"] = fit or [self.address]
            self._narrow.add(lease)
        future = self._client.submit(hold_lease, self._session, key, lease, key=key, pure=False, **options)
        self._leases[lease] = future
        future.add_done_callback(self._ended_callback(lease))

    def _ask_anew(self) -> None:
        """Workers have come or gone: other ones will do for the leases that wait."""
        narrow, self._narrow = self._narrow, set()
        for lease in narrow:
            self._told.lease_failed(lease, None)

    def _ended_callback(self, lease: int) -> Callable[[Any], None]:
        def ended(future: Any) -> None:
            if lease in self._leases and not self._closing:
                # Else it was cancelled, as where the scheduler begins anew.
                why = str(future._state.exception) if future.status == "error" else None
                self._run(self._tell_failed(lease, why))

        return ended

    async def _tell_failed(self, lease: int, why: str | None) -> None:
        # Workers of another scheduler at its address have no lanes for us: then all is lost.
        if await self._scheduler_answers() is not None:
            self._told.lease_failed(lease, why)

    async def _release_lease(self, lease: int) -> None:
        self._narrow.discard(lease)
        future = self._leases.pop(lease, None)
        if future is not None and not self._closing:
            await self._client._cancel([future])


class _Scattered:
    """Data that are scattered when they are first needed; the futures keep them in the cluster."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts
        self.futures: list[Any] = []

    def release(self) -> None:
        for future in self.futures:
            future.release()


class _NodeGoneError(Exception):
    """A worker does not answer."""


class DaskExecutor(ClusterExecutor):
    """Runs jobs on a Dask cluster, each in a process of its own on one of its workers' machines.

    A job on the cluster is what it is with `LocalExecutor`: `cancel` ends its processes on the remote machine, time and
    memory limits, reports, output and statuses mean the same, and its death is its alone.  Each Dask worker gets
    worker processes of jobrunner's beside it, as many as it has threads.  Dask's scheduler says where there is room: a
    job takes up a thread of a Dask worker, so that other users of the cluster, and clusters that grow by demand, are
    served as usual.  Arguments and results go to workers directly where this process can reach them, else by way of the
    scheduler, as they always do for a client that was made with ``direct_to_workers=False``.

    Args:
        client_or_address: a scheduler's address (``"tcp://host:8786"``), a ``distributed.Client``, or a cluster object
            (of ``LocalCluster``, dask-jobqueue, dask-kubernetes, …); default: the cluster of this process's Dask
            client, or of Dask's configuration.
        time_limit: as for `LocalExecutor`, and so are all options that are not described here.
        memory_limit: bytes, or text; at most what a Dask worker has as its own limit.
        retries: further attempts after the worker died or the node was lost, and after the exception types in
            `retry_on`.
        retry_on: exception types that are retried too.
        threads: BLAS/OpenMP threads that a job may use, and cores that it takes up of its Dask worker's.
        grace: seconds between a polite interrupt inside the job and the end of its processes.
        capture_output: whether what the job prints goes to its report instead of the caller's own streams.
        relay_logs: whether a job's warnings and log records reach the caller.
        max_workers: how many jobs run at a time; default: as many as there are threads in the cluster.
        max_pending: how many jobs may wait before `submit` blocks; None: no bound.
        resources: of Dask's, that each job takes up, such as ``{"GPU": 1}``; on workers that were started with them.
        upload: Python files, packages' directories, or archives of such, which jobs import on the nodes.
        idle_timeout: seconds after which an idle worker process leaves its node; None: never.
        max_jobs_per_worker: jobs after which a worker process is replaced; None: never.
        spare_workers: idle worker processes kept ready on each node.
        initializer: called in each worker process before its first job.
        initargs: its arguments.
        env: environment variables of the worker processes, on top of the Dask worker's.
        preload: names of modules that worker processes import before their first job.
        max_worker_growth: bytes, or text: a worker process whose memory at rest has grown by more is replaced.

    Raises:
        ImportError: Dask's distributed is not installed.
        JobRunnerError: no scheduler answers within ten seconds; or its workers have another version of Python or of
            jobrunner, or none.
        TypeError, ValueError: the address or an option is not what it must be; the message names it.

    Example:
        >>> from distributed import LocalCluster                                                 # doctest: +SKIP
        >>> with LocalCluster(n_workers=2) as cluster, DaskExecutor(cluster) as executor:        # doctest: +SKIP
        ...     executor.submit(pow, 2, 10).result()
        1024
    """

    def __init__(
        self, client_or_address: Any = None, *, resources: Mapping[str, float] | None = None, **options: Any
    ) -> None:
        config = self._configure(options)
        needed = self._check_resources(resources)
        import_distributed()
        where = default_place() if client_or_address is None else client_or_address
        self._begin(_DaskLink(where, config, needed), needed)
