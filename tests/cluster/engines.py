"""An engine whose nodes are in this process, and which places leases as a test wants; the lanes are real ones."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Collection, Sequence
from typing import Any

from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.cluster.link import NodeConfig, Told
from jobrunner.cluster.node import Node, describe_node

__all__ = ["NearbyExecutor", "NearbyLink"]


class NearbyLink:
    """The connection with nodes in this process; see `Link`.

    Leases get the first place that is free, in the order of the nodes.

    Args:
        memory: bytes that each node has, by its name.
        config: what the nodes are made with.
        cores: places of each node.
        chooses: whether a lease gets a place on one of the nodes that will do, and takes up one whatever its threads,
            as with Dask; else wherever there are as many as it has threads, as with Ray.
    """

    engine = "nearby"
    address = "here"
    most_waiting = 2

    def __init__(self, memory: dict[str, int], config: NodeConfig, *, cores: int, chooses: bool) -> None:
        self.chooses_nodes = chooses
        self._cores = cores
        self._config = config
        self._descriptions: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, Node] = {}
        self._lock = threading.Lock()
        # Guarded by it: which leases have places on each node, and which wait, with their threads and nodes.
        self._placed: dict[str, dict[int, int]] = {}
        self._waiting: dict[int, tuple[int, Collection[str] | None]] = {}
        #: names of places on nodes that never tell of themselves, and are given first
        self.strange: list[str] = []
        #: names of nodes whose places others have
        self.taken: set[str] = set()
        #: how many bytes a message may have; and the numbers of operations of those that were too large
        self.room: int | None = None
        self.too_large: list[int] = []
        self._collectors: list[threading.Thread] = []
        #: while it is not set, nothing is heard of any node
        self.heard = threading.Event()
        self.heard.set()
        for name, size in memory.items():
            self._describe(name, size)

    def _describe(self, name: str, size: int, cores: int | None = None) -> None:
        self._descriptions[name] = {**describe_node(cores or self._cores, size), "resources": {}, "host": name}

    def start(self, told: Told) -> None:
        self._told = told
        for name in list(self._descriptions):
            self.come(name)

    def come(self, name: str, memory: int | None = None, cores: int | None = None) -> None:
        """Have a node be there, again perhaps."""
        if memory is not None:
            self._describe(name, memory, cores)
        node = self._nodes[name] = Node(self._descriptions[name], *self._config)
        with self._lock:
            self._placed[name] = {}
        self._told.node_up(name, self._descriptions[name])
        self._collectors.append(threading.Thread(target=self._collect, args=(name, node)))
        self._collectors[-1].start()
        self.place()

    def go(self, name: str) -> None:
        """Have a node be gone, with what runs there, before anything more is heard of it."""
        with self._lock:
            del self._placed[name]
        self._told.node_down(name, "it was shot")
        self._nodes.pop(name).close()

    def lose(self) -> None:
        """Have the whole cluster be gone, as far as anybody can tell."""
        self._told.lost("it was shot")

    def evict(self, name: str) -> None:
        """End what runs at a node, as an engine does that takes its places away; it says later that they are gone."""
        with self._lock:
            leases = list(self._placed[name])
        for lease in leases:
            self._nodes[name].evict(lease)

    def _collect(self, name: str, node: Node) -> None:
        while (events := node.collect(10.0)) is not None:
            self.heard.wait()
            if self._nodes.get(name) is node:
                self._told.events(name, events)

    def post(self, node: str, operations: list[tuple[Any, ...]]) -> None:
        there = self._nodes.get(node)
        if there is not None:
            if self.room is not None and len(pickle.dumps(operations)) > self.room:
                self.too_large.append(len(operations))
                self._told.unsent(node, operations, "it is full")
            else:
                there.post(operations)
            self._told.posted(node)

    def ask_lease(self, lease: int, threads: int, places: Collection[str] | None) -> None:
        with self._lock:
            self._waiting[lease] = (1, places) if self.chooses_nodes else (threads, None)
        self.place()

    def release_lease(self, lease: int) -> None:
        with self._lock:
            self._waiting.pop(lease, None)
            for leases in self._placed.values():
                leases.pop(lease, None)
        self.place()

    def waiting(self) -> list[int]:
        """The leases that wait for a place."""
        with self._lock:
            return list(self._waiting)

    def place(self) -> None:
        """Give leases the places that are free."""
        placed = []
        with self._lock:
            self._placed = {**{name: {} for name in self.strange}, **self._placed}
            cores = {name: description["cores"] for name, description in self._descriptions.items()}
            for lease, (size, places) in list(self._waiting.items()):
                for name, leases in self._placed.items():
                    fits = name not in self.taken and (places is None or name in places)
                    if fits and sum(leases.values()) + size <= cores.get(name, 1):
                        leases[lease] = size
                        del self._waiting[lease]
                        placed.append((lease, name))
                        break
        for lease, name in placed:
            self._told.leased(lease, name)

    def put(self, parts: Sequence[memoryview]) -> Any:
        return [bytes(part) for part in parts]

    def drop(self, data: Any) -> None: ...

    def close(self) -> None:
        for node in self._nodes.values():
            node.close()
        for collector in self._collectors:
            collector.join()


class NearbyExecutor(ClusterExecutor):
    """Runs jobs on such nodes.

    Args:
        memory: bytes that each node has, by its name.
        cores: see `NearbyLink`.
        chooses: likewise.
        options: of a `ClusterExecutor`.
    """

    def __init__(self, memory: dict[str, int], *, cores: int = 1, chooses: bool = False, **options: Any) -> None:
        config = self._configure(options)
        self.link = NearbyLink(memory, config, cores=cores, chooses=chooses)
        self._begin(self.link, {})
