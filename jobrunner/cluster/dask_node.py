"""A Dask worker's side: the plugin that gives it lanes, and the tasks that are leases.

Imported by the workers.  The plugin answers two messages of the worker's, ``jobrunner_post`` and ``jobrunner_collect``,
for each caller that has registered one; and when a lease's task is to be released, because its caller says so or is
gone, it has the task return.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker
from distributed.protocol import to_serialize
from distributed.utils_comm import gather_from_workers

from jobrunner.cluster.link import NodeConfig
from jobrunner.cluster.node import Node, describe_node

__all__ = ["GONE", "REFUSED", "NodePlugin", "decode", "encode", "hold_lease", "lease_key", "topic_of"]

#: How long a collect waits for something to happen; then it comes back empty, so that none is forgotten.
_COLLECT_S = 20.0

#: How often a worker tells of itself until its caller answers.
_ANNOUNCE_S = 0.25
#: How often a worker looks whether it has a caller; after how long without a word it asks for one, and then has none.
_WATCH_S = 2.0
_FORSAKEN_S = 300.0
_LAST_CALL_S = 20.0

#: What an answer begins with that says why there can be no lanes.
REFUSED = "refused: "
#: The answer of a worker whose lanes have ended.
GONE = "gone"

#: The callers' plugins in this process, by the worker's address and the caller's session.
_HERE: dict[tuple[str, str], NodePlugin] = {}


def encode(values: Any) -> list[Any]:
    """Plain values as frames of a message of Dask's, whatever version of pickle its connection has agreed on."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(values, 5, buffer_callback=buffers.append)
    frames: list[Any] = [head]
    for buffer in buffers:
        memory = buffer.raw()
        owner = memory.obj
        # As it is where it may be; what is writable arrives so.
        frames.append(owner if isinstance(owner, bytes) and len(owner) == memory.nbytes else bytearray(memory))
    return [to_serialize(frame) for frame in frames]


def decode(frames: Sequence[Any]) -> Any:
    """The values again."""
    return pickle.loads(frames[0], buffers=frames[1:])  # noqa: S301 (from our own side of the cluster)


def lease_key(session: str, lease: int | str) -> str:
    """The key of the task that is a lease of a caller's."""
    return f"jobrunner-lease-{session}-{lease}"


def topic_of(session: str) -> str:
    """The topic under which the workers tell a caller of themselves."""
    return f"jobrunner-{session}"


class NodePlugin(WorkerPlugin):
    """Gives a Dask worker the lanes of one caller.

    Args:
        session: the caller.
        config: what the node is made with.
    """

    # Registered again for a worker that has it, it is the same.
    idempotent = True

    def __init__(self, session: str, config: NodeConfig) -> None:
        self.name = topic_of(session)
        self._session = session
        self._config = config

    async def setup(self, worker: Worker) -> None:
        """Begin to tell the caller that the worker is there; its lanes are made when the first job comes."""
        self._worker = worker
        self._node: Node | None = None
        self._threads = ThreadPoolExecutor(3, thread_name_prefix="jobrunner-node")
        # One post at a time, in order.
        self._posting = asyncio.Lock()
        self._closing = False
        # How often it has begun anew: what is meant for lanes that it had before is not for those that it has now.
        self._times = 0
        # By the key of their task.
        self._leases: dict[str, threading.Event] = {}
        # The keys of those that were to end before their thread had begun.
        self._unwanted: set[Any] = set()
        self._lock = threading.Lock()
        _HERE[worker.address, self._session] = self
        handlers: Any = worker.handlers
        handlers["jobrunner_post"] = _post
        handlers["jobrunner_collect"] = _collect
        handlers["jobrunner_begin_anew"] = _begin_anew
        handlers["jobrunner_rest"] = _rest
        memory = worker.memory_manager.memory_limit
        self._description = {
            **describe_node(worker.state.nthreads, memory),
            "resources": dict(worker.state.total_resources),
            "id": worker.id,
        }
        # Whether the caller has said anything, and whether it has lately.
        self._heard = self._spoken = False
        self._announcing = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        """Tell the caller of the worker until it says something: before a worker has begun, what it tells is lost.

        Then see that there is a caller.
        """
        silent_s = 0.0
        while not self._closing:
            if not self._heard:
                description = {**self._description, "incarnation": self.incarnation, "time": time.time()}
                told = {"op": "node", "address": self._worker.address, "description": description}
                self._worker.log_event(self.name, told)
            pause = _WATCH_S if self._heard else _ANNOUNCE_S
            await asyncio.sleep(pause)
            # Not by the clock: what is said to a process that is stopped counts when that goes on.
            silent_s = 0.0 if self._spoken else silent_s + pause
            self._spoken = False
            if silent_s < _FORSAKEN_S:
                continue
            if self._heard:
                # It may have given this worker up, and could not say so.
                await self.begin_anew()
                silent_s = _FORSAKEN_S - _LAST_CALL_S
            else:
                # The caller is gone, and could not say so: nobody is to have lanes for it, nor workers that come.
                with contextlib.suppress(Exception):
                    await self._worker.scheduler.unregister_worker_plugin(name=self.name)
                return

    @property
    def incarnation(self) -> str:
        """Tells the lanes of now from those that the worker, or another one at its address, had before."""
        return f"{self._worker.id}/{self._times}"

    def rest(self) -> None:
        """The caller knows of this worker."""
        self._heard = self._spoken = True

    async def begin_anew(self) -> None:
        """The caller has given this worker up: end what runs, and tell of the worker again."""
        async with self._posting:
            self._times += 1
            node, self._node = self._node, None
            if node is not None:
                await asyncio.get_running_loop().run_in_executor(self._threads, node.close)
            self._heard = False

    async def teardown(self, worker: Worker) -> None:
        """End the lanes and what runs in them."""
        _HERE.pop((worker.address, self._session), None)
        with self._lock:
            self._closing = True
            events = list(self._leases.values())
        for event in events:
            event.set()
        node, self._node = self._node, None
        if node is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, node.close)
        self._threads.shutdown(wait=False)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """A lease whose task is not wanted any more returns, also where its thread has not begun yet."""
        if finish in ("cancelled", "released", "forgotten"):
            with self._lock:
                event = self._leases.get(key)
                if event is not None:
                    event.set()
                elif start == "executing" and str(key).startswith(lease_key(self._session, "")):
                    self._unwanted.add(key)
                else:
                    self._unwanted.discard(key)

    def hold(self, key: str, lease: int) -> None:
        """Be a lease, until that ends; in a thread of the worker's."""
        event = threading.Event()
        with self._lock:
            self._leases[key] = event
            unwanted = key in self._unwanted
            self._unwanted.discard(key)
        try:
            if self._closing or unwanted:
                return
            told = {"op": "lease", "lease": lease, "address": self._worker.address}
            self._worker.loop.add_callback(self._worker.log_event, self.name, told)
            event.wait()
            # Its caller gives back only what has no jobs: otherwise the caller is gone, or Dask wants the place.
            node = self._node
            if node is not None:
                node.evict(lease)
        finally:
            with self._lock:
                self._leases.pop(key, None)

    async def post(self, incarnation: str, operations: Sequence[tuple[Any, ...]]) -> list[str] | str | None:
        """Carry out what the caller wants.

        Returns:
            None; or the keys of scattered data that can't be had, why there can be no lanes (after `REFUSED`), or
            `GONE`: then nothing was carried out.
        """
        async with self._posting:
            if incarnation != self.incarnation:
                return GONE
            ready, missing = [], []
            for operation in operations:
                try:
                    ready.append(await self._fetched(operation))
                except (KeyError, OSError):
                    missing.append(operation[2])
            if missing:
                return missing
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._carry_out, ready)

    async def _fetched(self, operation: tuple[Any, ...]) -> tuple[Any, ...]:
        """An operation with what stands for scattered data replaced by them.

        Raises:
            KeyError, OSError: they are gone.
        """
        if operation[0] != "share" or not isinstance(operation[2], str):
            return operation
        key, worker = operation[2], self._worker
        if key in worker.data:
            return (*operation[:2], worker.data[key])
        # From whichever worker has them.
        places = await worker.scheduler.who_has(keys=[key])
        found = await gather_from_workers(places, rpc=worker.rpc, who=worker.address)
        return (*operation[:2], found[0][key])

    def _carry_out(self, operations: Sequence[tuple[Any, ...]]) -> str | None:
        if self._closing:
            return GONE
        if self._node is None:
            try:
                node = Node(self._description, *self._config)
            except Exception as error:
                return f"{REFUSED}{type(error).__name__}: {error}"
            with self._lock:
                if not self._closing:
                    self._node = node
            if self._node is None:
                node.close()
                return GONE
        self._node.post(operations)
        return None

    async def collect(self) -> list[tuple[Any, ...]] | None:
        """What has happened in the lanes; None once they have ended."""
        self.rest()
        node, incarnation = self._node, self.incarnation
        if node is None:
            return []
        events = await asyncio.get_running_loop().run_in_executor(self._threads, node.collect, _COLLECT_S)
        return events if incarnation == self.incarnation else None


def _plugin(session: str, address: str, incarnation: str) -> NodePlugin | None:
    """The plugin of a caller that a message is meant for, if it is there still."""
    plugin = _HERE.get((address, session))
    return plugin if plugin is not None and plugin.incarnation == incarnation else None


async def _post(session: str, address: str, incarnation: str, operations: Any) -> Any:
    plugin = _plugin(session, address, incarnation)
    if plugin is None:
        return GONE
    return await plugin.post(incarnation, decode(operations)) or "carried out"


async def _collect(session: str, address: str, incarnation: str) -> Any:
    plugin = _plugin(session, address, incarnation)
    events = None if plugin is None else await plugin.collect()
    return None if events is None else encode(events)


async def _begin_anew(session: str, address: str, incarnation: str) -> None:
    plugin = _plugin(session, address, incarnation)
    if plugin is not None:
        await plugin.begin_anew()


async def _rest(session: str, address: str, incarnation: str) -> None:
    plugin = _plugin(session, address, incarnation)
    if plugin is not None:
        plugin.rest()


def hold_lease(session: str, key: str, lease: int) -> None:
    """The task that is a lease: a thread of the worker's, taken up until the lease ends."""
    plugin = _HERE.get((get_worker().address, session))
    if plugin is None:
        raise RuntimeError("the worker has no lanes for this caller")
    plugin.hold(key, lease)
