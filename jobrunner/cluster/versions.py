"""Whether a caller and its nodes understand each other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from jobrunner.cluster.node import describe_node
from jobrunner.errors import JobRunnerError

__all__ = ["VersionMismatchWarning", "check_nodes", "differences", "misfit"]


class VersionMismatchWarning(UserWarning):
    """A package has another version on a node than here: what is pickled of it may not cross."""


def misfit(node: Mapping[str, Any]) -> str | None:
    """Why a node can't be used; None: it can.

    Args:
        node: what it says of itself; see `describe_node`.
    """
    here = describe_node()
    for what, name in (("python", "Python"), ("jobrunner", "jobrunner")):
        ours, theirs = here[what], node[what]
        if what == "python":
            ours, theirs = (version.rpartition(".")[0] for version in (ours, theirs))
        if ours != theirs:
            return f"{name} is {node[what]} there and {here[what]} here"
    return None


def differences(node: Mapping[str, Any]) -> list[str]:
    """The packages of which a node has another version, in words; those that one of both lacks are not counted."""
    here = describe_node()["packages"]
    return [
        f"{name} is {theirs} there and {here[name]} here"
        for name, theirs in node["packages"].items()
        if name in here and here[name] != theirs
    ]


def check_nodes(nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Check those that are there when a cluster is connected to.

    Raises:
        JobRunnerError: one has another version of Python or of jobrunner.
    """
    unfit = {name: why for name, node in nodes.items() if (why := misfit(node)) is not None}
    if unfit:
        told = "; ".join(f"{name}: {why}" for name, why in unfit.items())
        raise JobRunnerError(
            f"what is pickled here can't be run on nodes of the cluster: {told}. Give caller and nodes the same "
            "minor version of Python, and the same jobrunner."
        )
    told_of: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for difference in differences(node):
            told_of.setdefault(difference, []).append(name)
    for difference, names in told_of.items():
        warnings.warn(
            f"{difference} (node {', '.join(names)}): what is pickled of it may not cross",
            VersionMismatchWarning,
            stacklevel=4,
        )
