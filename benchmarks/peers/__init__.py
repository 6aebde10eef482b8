"""The libraries that are compared: one class each, which says how it is started, given jobs, and cancelled.

Each is used as its documentation recommends for speed, jobrunner with its defaults; the settings are printed with the
results.  A peer's library is imported by `Peer.start`, not before.
"""

from __future__ import annotations

from benchmarks.peers.base import Pace, Peer, installed, settings_of, version_of
from benchmarks.peers.engines import ENGINES
from benchmarks.peers.pools import POOLS

__all__ = ["ALL_PEERS", "MACHINE", "OURS", "PEERS", "Pace", "Peer", "installed", "settings_of", "version_of"]

#: The one that the others are peers of.
OURS = "jobrunner"

#: What stands for the machine's limits, in the place of a peer's name.
MACHINE = "machine"

#: The process pools by name, jobrunner first: what the fault matrix is made for.
PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in POOLS}

#: These and the engines for batches and clusters.
ALL_PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (*POOLS, *ENGINES)}
