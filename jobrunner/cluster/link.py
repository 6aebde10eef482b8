"""What a keeper needs of an engine: nodes, leases on them, and messages there and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["Link", "NodeConfig", "Told"]


class NodeConfig(NamedTuple):
    """What a node is made with.

    Attributes:
        pool: options of its `LocalExecutor`.
        uploads: files for its jobs to import; see `Node`.
    """

    pool: dict[str, Any]
    uploads: Sequence[tuple[str, bool, bytes]] = ()


class Told(Protocol):
    """What an engine tells; any thread may, and is not kept waiting."""

    def node_up(self, node: str, description: Mapping[str, Any]) -> None:
        """A node has come; `description` is of `describe_node`."""

    def node_down(self, node: str, why: str) -> None:
        """A node is gone, with all that it had."""

    def events(self, node: str, events: Sequence[tuple[Any, ...]]) -> None:
        """What a node's `collect` gave."""

    def posted(self, node: str) -> None:
        """The operations of the last `post` are carried out."""

    def unsent(self, node: str, operations: Sequence[tuple[Any, ...]], why: str) -> None:
        """Operations of a post, jobs among them, were not sent, for they are too large; `posted` follows."""

    def refused(self, node: str, operations: Sequence[tuple[Any, ...]], why: str) -> None:
        """A node can't have lanes, so that it could not carry operations out; `posted` follows."""

    def leased(self, lease: int, node: str) -> None:
        """A lease has got its place; again where it gets another."""

    def lease_failed(self, lease: int, why: str | None) -> None:
        """A lease will not get a place, or has lost it for good; None: no fault of its own."""

    def lost(self, why: str) -> None:
        """The whole cluster can't be reached any more."""


class Link(Protocol):
    """The connection with an engine.  Its methods are called by the keeper's thread, and don't wait."""

    #: the engine's name, as `Backend.name` has it
    engine: str
    #: where the cluster is, for people
    address: str
    #: how many leases may be asked for beyond the cores that are there, so that a cluster grows by demand
    most_waiting: int
    #: whether a lease has its place on one of the nodes that it was asked for at; else on any
    chooses_nodes: bool

    def start(self, told: Told) -> None:
        """Begin to tell; the nodes that are there first."""

    def post(self, node: str, operations: list[tuple[Any, ...]]) -> None:
        """Send operations to a node; `Told.posted` follows, and no other post to it before; or `Told.node_down`."""

    def ask_lease(self, lease: int, threads: int, places: Collection[str] | None) -> None:
        """Ask for a slot of so many cores, on whichever node, or (where the engine can choose) one of `places`."""

    def release_lease(self, lease: int) -> None:
        """Give a lease back, whether it has its place or not."""

    def put(self, parts: Sequence[memoryview]) -> Any:
        """Hand large data to the engine, for any node that asks; what goes in place of them into operations.

        Raises:
            Exception: it can't take them.
        """

    def drop(self, data: Any) -> None:
        """Data that were `put` are not wanted any more."""

    def close(self) -> None:
        """End the nodes' lanes, and the connection; may take its time."""
