"""An engine whose nodes are in this process, and which places leases as a test wants; the lanes are real ones."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Any

from jobrunner.cluster.executor import ClusterExecutor
from jobrunner.cluster.link import NodeConfig, Told
from jobrunner.cluster.node import Node, describe_node

__all__ = ["NearbyExecutor", "NearbyLink"]


class NearbyLink:
    """The connection with nodes of one core each; see `Link`.

    Leases get the first place that is free, in the order of the nodes.

    Args:
        memory: bytes that each node has, by its name.
        config: what the nodes are made with.
        chooses: whether that is one of those that will do, as with Dask; else whichever there is, as with Ray.
    """

    engine = "nearby"
    address = "here"
    most_waiting = 2

    def __init__(self, memory: dict[str, int], config: NodeConfig, *, chooses: bool) -> None:
        self._chooses = chooses
        self._descriptions = {
            name: {**describe_node(1, size), "resources": {}, "host": name} for name, size in memory.items()
        }
        self._config = config
        self._nodes: dict[str, Node] = {}
        self._lock = threading.Lock()
        # Guarded by it: who has the place of each node, and who waits for one.
        self._placed: dict[str, int | None] = dict.fromkeys(memory)
        #: names of places on nodes that never tell of themselves, and are given first
        self.strange: list[str] = []
        self._waiting: dict[int, Collection[str] | None] = {}
        self._collectors: list[threading.Thread] = []
        #: while it is not set, nothing is heard of any node
        self.heard = threading.Event()
        self.heard.set()

    def start(self, told: Told) -> None:
        self._told = told
        for name in self._descriptions:
            self.come(name)

    def come(self, name: str) -> None:
        """Have a node be there, again perhaps."""
        node = self._nodes[name] = Node(self._descriptions[name], *self._config)
        self._told.node_up(name, self._descriptions[name])
        self._collectors.append(threading.Thread(target=self._collect, args=(name, node)))
        self._collectors[-1].start()

    def go(self, name: str) -> None:
        """Have a node be gone, with what runs there, before anything more is heard of it."""
        self._told.node_down(name, "it was shot")
        self._nodes.pop(name).close()

    def _collect(self, name: str, node: Node) -> None:
        while (events := node.collect(10.0)) is not None:
            self.heard.wait()
            if self._nodes.get(name) is node:
                self._told.events(name, events)

    def post(self, node: str, operations: list[tuple[Any, ...]]) -> None:
        there = self._nodes.get(node)
        if there is not None:
            there.post(operations)
            self._told.posted(node, None)

    def ask_lease(self, lease: int, threads: int, places: Collection[str] | None) -> None:
        with self._lock:
            self._waiting[lease] = places if self._chooses else None
        self._place()

    def release_lease(self, lease: int) -> None:
        with self._lock:
            self._waiting.pop(lease, None)
            for name, holder in self._placed.items():
                if holder == lease:
                    self._placed[name] = None
        self._place()

    def _place(self) -> None:
        with self._lock:
            self._placed = {**dict.fromkeys(self.strange), **self._placed}
            placed = {}
            for name, holder in self._placed.items():
                fits = (lease for lease, places in self._waiting.items() if places is None or name in places)
                if holder is None and (lease := next(fits, None)) is not None:
                    del self._waiting[lease]
                    placed[name] = lease
            self._placed.update(placed)
        for name, lease in placed.items():
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
        chooses: see `NearbyLink`.
        options: of a `ClusterExecutor`.
    """

    def __init__(self, memory: dict[str, int], *, chooses: bool = False, **options: Any) -> None:
        config = self._configure(options)
        self.link = NearbyLink(memory, config, chooses=chooses)
        self._begin(self.link, {})
