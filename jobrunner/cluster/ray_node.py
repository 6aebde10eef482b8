"""A Ray node's side: the actor that holds its lanes.  Imported by Ray's workers."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.util import placement_group_table

from jobrunner.cluster.link import NodeConfig
from jobrunner.cluster.node import Node, describe_node

__all__ = ["Lanes"]

#: How long a collect waits for something to happen; then it comes back empty.
_COLLECT_S = 20.0


class Lanes:
    """The lanes of one caller on one node; an actor of Ray's.

    Args:
        cores: of the node, that Ray knows of.
        config: what the node is made with.
    """

    def __init__(self, cores: int, config: NodeConfig) -> None:
        # Ray tells its workers how many threads to use; ours are told by the job.
        os.environ.pop("OMP_NUM_THREADS", None)
        self._config = config
        self._description = describe_node(cores)
        self._node = Node(self._description, *config)

    def describe(self) -> dict[str, Any]:
        """What the caller wants to know of the node."""
        return {**self._description, "time": time.time()}

    def post(self, operations: Sequence[tuple[Any, ...]]) -> None:
        """Carry out what the caller wants; one call at a time."""
        self._node.post([_fetched(one) for one in operations])

    def collect(self) -> list[tuple[Any, ...]] | None:
        """What has happened in the lanes; None once they are closed."""
        return self._node.collect(_COLLECT_S)

    def groups(self) -> dict[str, tuple[str, list[str]]]:
        """The state of each placement group of the cluster, by its id, and the ids of the nodes that it is on."""
        table = placement_group_table()
        return {
            group: (str(entry.get("state")), list(dict(entry.get("bundles_to_node_id", {})).values()))
            for group, entry in table.items()
        }

    def undelivered(self, why: str) -> bool:
        """What the last collect gave has not arrived; see `Node.undelivered`."""
        return self._node.undelivered(why)

    def close(self) -> None:
        """End the lanes and what runs in them."""
        self._node.close()


def _fetched(operation: tuple[Any, ...]) -> tuple[Any, ...]:
    """An operation with data in place of the reference of an object in Ray's store."""
    if operation[0] == "share" and isinstance(operation[2], ray.ObjectRef):
        return (*operation[:2], ray.get(operation[2]))
    return operation
