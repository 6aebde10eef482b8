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

__all__ = ["REFUSED", "NodePlugin", "decode", "encode", "hold_lease", "topic_of"]

#: How long a collect waits for something to happen; then it comes back empty, so that none is forgotten.
_COLLECT_S = 20.0

#: How often a worker tells of itself until its caller answers.
_ANNOUNCE_S = 0.25
#: How often a worker looks whether it has a caller, and after how long without a word it has none.
_WATCH_S = 2.0
_FORSAKEN_S = 300.0

#: What an answer begins with that says why there can be no lanes.
REFUSED = "refused: "

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
        # By the key of their task.
        self._leases: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        _HERE[worker.address, self._session] = self
        handlers: Any = worker.handlers
        handlers["jobrunner_post"] = _post
        handlers["jobrunner_collect"] = _collect
        handlers["jobrunner_begin_anew"] = _begin_anew
        memory = worker.memory_manager.memory_limit
        self._description = {
            **describe_node(worker.state.nthreads, memory),
            "resources": dict(worker.state.total_resources),
            "id": worker.id,
        }
        self._heard = False
        self._collected = time.monotonic()
        self._announcing = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        """Tell the caller of the worker until it says something: before a worker has begun, what it tells is lost.

        Then see that there is a caller.
        """
        while not self._closing:
            if not self._heard:
                told = {
                    "op": "node",
                    "address": self._worker.address,
                    "description": {**self._description, "time": time.time()},
                }
                self._worker.log_event(self.name, told)
            if time.monotonic() - self._collected > _FORSAKEN_S:
                # The caller is gone, and could not say so: nobody is to have lanes for it, nor workers that come.
                with contextlib.suppress(Exception):
                    await self._worker.scheduler.unregister_worker_plugin(name=self.name)
                return
            await asyncio.sleep(_WATCH_S if self._heard else _ANNOUNCE_S)

    async def begin_anew(self) -> None:
        """The caller has given this worker up: end what runs, and tell of the worker again."""
        node, self._node = self._node, None
        if node is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, node.close)
        self._heard = False

    async def teardown(self, worker: Worker) -> None:
        """End the lanes and what runs in them."""
        self._closing = True
        _HERE.pop((worker.address, self._session), None)
        with self._lock:
            events = list(self._leases.values())
        for event in events:
            event.set()
        node, self._node = self._node, None
        if node is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, node.close)
        self._threads.shutdown(wait=False)

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """A lease whose task is not wanted any more returns."""
        if finish in ("cancelled", "released", "forgotten"):
            with self._lock:
                event = self._leases.get(key)
            if event is not None:
                event.set()

    def hold(self, key: str, lease: int) -> None:
        """Be a lease, until that ends; in a thread of the worker's."""
        event = threading.Event()
        with self._lock:
            self._leases[key] = event
        try:
            if self._closing:
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

    async def post(self, operations: Sequence[tuple[Any, ...]]) -> list[str] | str | None:
        """Carry out what the caller wants.

        Returns:
            None; or the keys of scattered data that can't be had, or why there can be no lanes (after `REFUSED`): then
            nothing was carried out.
        """
        async with self._posting:
            ready, missing = [], []
            for operation in operations:
                try:
                    ready.append(await self._fetched(operation))
                except (KeyError, OSError):
                    missing.append(operation[2])
            if missing:
                return missing
            why = await asyncio.get_running_loop().run_in_executor(self._threads, self._carry_out, ready)
            return None if why is None else REFUSED + why

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
        if self._node is None:
            if self._closing:
                return None
            try:
                self._node = Node(self._description, *self._config)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        self._node.post(operations)
        return None

    async def collect(self) -> list[tuple[Any, ...]] | None:
        """What has happened in the lanes."""
        self._heard, self._collected = True, time.monotonic()
        node = self._node
        if node is None:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._threads, node.collect, _COLLECT_S)


def _plugin(session: str, address: str) -> NodePlugin | None:
    return _HERE.get((address, session))


async def _post(session: str, address: str, operations: Any) -> Any:
    plugin = _plugin(session, address)
    if plugin is None:
        return "gone"
    return await plugin.post(decode(operations)) or "carried out"


async def _collect(session: str, address: str) -> Any:
    plugin = _plugin(session, address)
    events = None if plugin is None else await plugin.collect()
    return None if events is None else encode(events)


async def _begin_anew(session: str, address: str) -> None:
    plugin = _plugin(session, address)
    if plugin is not None:
        await plugin.begin_anew()


def hold_lease(session: str, key: str, lease: int) -> None:
    """The task that is a lease: a thread of the worker's, taken up until the lease ends."""
    plugin = _plugin(session, get_worker().address)
    if plugin is None:
        raise RuntimeError("the worker has no lanes for this caller")
    plugin.hold(key, lease)
