"""Leases: how many are asked for, when they are given back, which may be sent jobs.  The keeper's thread alone."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping

from jobrunner.cluster.job import ClusterJob
from jobrunner.cluster.link import Link
from jobrunner.cluster.queues import Queues
from jobrunner.cluster.records import KnownNode, Lease, Precedence

__all__ = ["Leases"]

_log = logging.getLogger("jobrunner")

#: How long a lease without jobs is kept.
_LINGER_S = 0.5
#: After how long a lease is given back for another, at the end of a job: others wait for the place, too.
_TERM_S = 5.0
#: A job that has waited for so long at a node is taken back when another lease has nothing to do, or the one before it
#: has run for so long.
_TAKE_BACK_S = 0.25
#: A node on which a lease was placed has told of itself after so long, or is of no use.
_STRANGE_S = 3.0
#: So many leases in a row that fail before any job ran mean that there is no getting one.
_MOST_FAILED = 10


class Leases:
    """The leases of one executor.

    Args:
        link: the engine, which gives them.
        max_workers: how many may have jobs at a time; None: as many as there are.
        nodes: those that are there, by name.
        queues: the jobs that wait.
    """

    def __init__(self, link: Link, max_workers: int | None, nodes: Mapping[str, KnownNode], queues: Queues) -> None:
        self._link = link
        self._max_workers = max_workers
        self._nodes = nodes
        self._queues = queues
        self._leases: dict[int, Lease] = {}
        self._numbers = itertools.count(1)
        self._failed = 0

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._leases.values()))

    def get(self, number: int | None) -> Lease | None:
        """The lease of a number, if it is there still."""
        return None if number is None else self._leases.get(number)

    def close(self, number: int | None) -> None:
        """The engine has taken a lease's place away: nothing more is sent there, though it has not failed yet."""
        lease = self.get(number)
        if lease is not None:
            lease.until = -math.inf

    def clear(self) -> None:
        """Forget all: there is no engine to give them back to."""
        self._leases.clear()

    def vacancies(self) -> float:
        """How many of those without jobs may be sent some."""
        if self._max_workers is None:
            return math.inf
        return self._max_workers - sum(bool(lease.jobs) for lease in self._leases.values())

    def precedence(self) -> Precedence:
        """What the next of all jobs has before others."""
        first = self._queues.first(lambda job: any(node.takes(job.options) for node in self._nodes.values()))
        if first is None:
            return Precedence(None)
        yielding = self._queues.yielding(first, {lease.threads for lease in self._leases.values()})
        return Precedence(first, frozenset(yielding), self._kept_for(first))

    def _kept_for(self, first: ClusterJob) -> frozenset[str]:
        """The names of the nodes where others make room for the next of all jobs."""
        now = time.monotonic()
        idle = (lease for lease in self._leases.values() if lease.threads == first.options.threads and not lease.jobs)
        nodes = [lease.node for lease in idle if lease.node is not None and now < lease.until]
        takes = [node for node in nodes if node.takes(first.options)]
        if takes:
            # One is enough: that with most room, of which there is ever more until it is enough.
            return frozenset({max(takes, key=lambda node: (node.free_cores, node.free_memory, node.name)).name})
        # From an engine that can't be told where, it may get any place.
        chosen = self._fitting(first.options.threads, first.options.memory_bytes)
        return chosen if self._link.chooses_nodes else frozenset(self._nodes)

    def open(self, threads: int, precedence: Precedence, now: float) -> list[Lease]:
        """Those that may be sent jobs of so many threads: those that the next may go to first, and that have least."""
        head = self._queues.head(threads)
        least = min(self._queues.needs(threads), default=0)
        found = [
            lease
            for lease in self._leases.values()
            if lease.threads == threads
            and lease.node is not None
            and now < lease.until
            and not precedence.bars(threads, lease.node.name)
            and not lease.is_held_up(now, _TAKE_BACK_S)
            and lease.node.has_room(threads, least, lease.number)
        ]

        def key(lease: Lease) -> tuple[bool, int, bool]:
            node = lease.node
            assert node is not None
            takes = head is None or node.has_room(threads, head.options.memory_bytes, lease.number)
            return not takes, len(lease.jobs), node.is_at_work(threads)

        return sorted(found, key=key)

    def due(self, now: float) -> list[float]:
        """When there is something to do though nothing comes."""
        kinds = self._queues.kinds()
        # While jobs wait, idle leases are kept.
        due = [
            lease.idle_since + _LINGER_S
            for lease in self._leases.values()
            if not lease.jobs and lease.node and lease.threads not in kinds
        ]
        if due and any(node.jobs for node in self._nodes.values()):
            due.append(now + _TAKE_BACK_S)
        placed = [lease.placed + _STRANGE_S for lease in self._leases.values() if lease.place is not None]
        due += [moment for moment in placed if moment >= now]
        due += [
            job.seen + _TAKE_BACK_S
            for lease in self._leases.values()
            if len(lease.jobs) > 1
            for job in lease.running
            if now <= job.seen + _TAKE_BACK_S
        ]
        if kinds:
            due.append(now + _TERM_S)
        return due

    # --- how many ---

    def keep(self, precedence: Precedence, now: float) -> None:
        """Ask for as many as there is use for, and give back those that nobody needs.

        Args:
            precedence: of the next of all jobs.
            now: the time (monotonic).
        """
        kinds: dict[int, list[Lease]] = {threads: [] for threads in self._queues.kinds()}
        for lease in self._leases.values():
            kinds.setdefault(lease.threads, []).append(lease)
        # What is given back first may be what the others wait for.
        idle = {threads: self._give_back(threads, leases, precedence, now) for threads, leases in kinds.items()}
        for threads, leases in kinds.items():
            if self._queues.head(threads) is not None:
                there = [lease for lease in leases if lease.number in self._leases]
                self._ask_for(threads, self._renewed(there, now), precedence, now)
            self._take_back(leases, idle[threads], now)

    def _ask_for(self, threads: int, leases: list[Lease], precedence: Precedence, now: float) -> None:
        """Ask for leases for the jobs of so many threads that wait.

        Where nodes differ in memory, each job has leases asked for at the nodes that will do for it, so that one that
        waits for a large node holds up none that any node would do for.
        """
        known = [lease for lease in leases if now <= lease.placed + _STRANGE_S]
        levels = self._levels(threads, precedence)
        if not levels:
            self._drop_all(lease for lease in leases if not lease.jobs)
        jobs = 0
        for nodes, count, memory in levels:
            jobs += count
            of_use, where = self._of_use(threads, memory, known, nodes)
            wanted = jobs - sum(not lease.jobs and self._serves(lease, nodes) for lease in of_use)
            if nodes is levels[-1][0]:
                # Those that wait behind others would do better apart.
                wanted += sum(len(lease.jobs) - 1 for lease in known if lease.jobs)
            if self._max_workers is None:
                room = self._free_room(threads, of_use, nodes)
            else:
                room = self._bounded_room(threads, of_use, nodes, self._max_workers, precedence, now)
                room = self._see_to_next(threads, of_use, nodes, room, precedence)
            known += [self._ask(threads, memory, where) for _ in range(min(room, wanted))]

    def _of_use(
        self, threads: int, memory: int, leases: list[Lease], nodes: frozenset[str]
    ) -> tuple[list[Lease], frozenset[str]]:
        """Without leases at nodes where a job would wait for others, while there are nodes where it would not.

        Args:
            threads: of a job.
            memory: bytes that it needs.
            leases: those for such jobs.
            nodes: the names of those that will do for them.

        Returns:
            The leases that are of use; and where to ask for more.
        """
        full = {
            lease.number
            for lease in leases
            if not lease.jobs and lease.node is not None and not lease.node.has_room(threads, memory)
        }
        # An engine has as many places as cores: usually none is idle where none of these is free.
        free = frozenset(name for name in nodes if self._nodes[name].has_room(threads, memory)) if full else None
        if not free:
            return leases, nodes
        return [lease for lease in leases if lease.number not in full], free

    def _levels(self, threads: int, precedence: Precedence) -> list[tuple[frozenset[str], int, int]]:
        """The nodes that will do for jobs of so many threads that wait, for how many, and the least that these need.

        The fewest nodes are first: those that will do for much memory are among those that will do for less.  Jobs
        that fit no node that is there are left out, and nodes that are left to others.
        """
        levels: dict[frozenset[str], tuple[int, int]] = {}
        for memory, count in self._queues.needs(threads).items():
            nodes = self._left(threads, memory, precedence)
            if nodes or not self._nodes:
                before, least = levels.get(nodes, (0, memory))
                levels[nodes] = before + count, min(least, memory)
        return [(nodes, *levels[nodes]) for nodes in sorted(levels, key=len)]

    def _fitting(self, threads: int, memory: int) -> frozenset[str]:
        """The names of the nodes that a job of so many threads and bytes could run on."""
        return frozenset(name for name, node in self._nodes.items() if node.fits(threads, memory))

    def _left(self, threads: int, memory: int, precedence: Precedence) -> frozenset[str]:
        """Those of them that are not left to others."""
        nodes = self._fitting(threads, memory)
        return nodes - precedence.nodes if threads in precedence.yielding else nodes

    def _serves(self, lease: Lease, nodes: frozenset[str]) -> bool:
        """Whether a lease is on one of such nodes, or will be, as far as that is known."""
        if lease.node is not None:
            return lease.node.name in nodes
        if lease.place is not None:
            return True
        return len(nodes) == len(self._nodes) if lease.places is None else lease.places <= nodes

    def _meant(self, leases: Iterable[Lease], nodes: frozenset[str]) -> list[Lease]:
        """The leases on such nodes, and those that were asked for at just these."""
        places = self._places(nodes)
        return [lease for lease in leases if (lease.places == places if lease.waits else self._serves(lease, nodes))]

    def _places(self, nodes: frozenset[str]) -> frozenset[str] | None:
        return None if len(nodes) == len(self._nodes) else nodes

    def _free_room(self, threads: int, leases: list[Lease], nodes: frozenset[str]) -> int:
        """How many more leases may be asked for, of such nodes, where there is no `max_workers`."""
        cores = sum(self._nodes[name].cores // threads for name in nodes)
        return cores + self._link.most_waiting - len(self._meant(leases, nodes))

    def _bounded_room(
        self,
        threads: int,
        leases: list[Lease],
        nodes: frozenset[str],
        max_workers: int,
        precedence: Precedence,
        now: float,
    ) -> int:
        """The same with `max_workers`; below zero where there are more than may be used."""
        used = sum(bool(lease.jobs) for lease in self._leases.values())
        used += sum(not lease.jobs for lease in self._meant(leases, nodes))
        if precedence.first is not None and precedence.first.options.threads != threads:
            others = (lease for lease in self._leases.values() if lease.threads != threads and not lease.jobs)
            used += sum(self._is_of_use(lease, precedence.first, now) for lease in others)
        return max_workers - used

    def _is_of_use(self, lease: Lease, first: ClusterJob, now: float) -> bool:
        """Whether a lease without jobs is to have the next of its number of threads, and so is not to be left out.

        What the next of all jobs waits for holds up none that can run now.
        """
        head = self._queues.head(lease.threads)
        if head is None or now > lease.placed + _STRANGE_S:
            return False
        if lease.node is None:
            return lease.threads != first.options.threads
        return lease.node.has_room(lease.threads, head.options.memory_bytes)

    def _see_to_next(
        self, threads: int, leases: list[Lease], nodes: frozenset[str], room: int, precedence: Precedence
    ) -> int:
        """With `max_workers`, the next of all jobs has a lease, though those behind it are at work elsewhere.

        Beside that, idle ones are given back that are more than may be used.

        Args:
            threads: of a number of threads.
            leases: of that number.
            nodes: where leases are to be asked for.
            room: how many more may be, as far as that is not seen to.
            precedence: of the next of all jobs.

        Returns:
            How many more may be asked for.
        """
        head = self._queues.head(threads)
        if head is None or nodes != self._left(threads, head.options.memory_bytes, precedence):
            return room
        there = [lease for lease in leases if self._serves(lease, nodes)]
        at_work = any(lease.jobs for lease in self._leases.values())
        elsewhere = head is precedence.first and at_work and not any(lease.jobs for lease in there)
        if elsewhere and not there:
            return 1
        idle = [lease for lease in there if not lease.jobs and lease.node is not None]
        self._drop_all(idle[1 if elsewhere else 0 :][: max(0, -room)])
        return room

    def _ask(self, threads: int, memory: int, nodes: frozenset[str]) -> Lease:
        lease = Lease(next(self._numbers), threads, memory, self._places(nodes))
        self._leases[lease.number] = lease
        self._link.ask_lease(lease.number, threads, lease.places)
        return lease

    def _renewed(self, leases: list[Lease], now: float) -> list[Lease]:
        """Leases whose term is over are given back, once they have no jobs: at the engine, we queue behind others then.

        So are those that have waited for as long, while there are others to work with in their stead.
        """
        placed = [lease for lease in leases if not lease.waits]
        kept = []
        for lease in leases:
            over = now >= lease.until
            if lease.waits and now >= lease.asked + _TERM_S:
                places = frozenset(self._nodes) if lease.places is None else lease.places
                over = any(self._serves(other, places) for other in placed)
            if over and not lease.jobs:
                self._drop(lease)
            else:
                kept.append(lease)
        return kept

    def _give_back(self, threads: int, leases: list[Lease], precedence: Precedence, now: float) -> int:
        """Give back what makes room for the next of all jobs, and what nobody needs, for none waits.

        Returns:
            How many idle ones are kept, of those that no jobs wait for, where one could run.
        """
        if threads in precedence.yielding:
            self._drop_all(lease for lease in leases if not lease.jobs and self._could_be(lease, precedence.nodes))
            leases = [lease for lease in leases if lease.number in self._leases]
        if self._queues.head(threads) is not None:
            return 0
        count, jobs = len(leases), sum(len(lease.jobs) for lease in leases)
        linger = _LINGER_S if precedence.first is None else 0.0
        idle = 0
        for lease in leases:
            if lease.node is None and count > jobs:
                count -= 1
                self._drop(lease)
            elif lease.node is not None and not lease.jobs:
                if now >= min(lease.idle_since + linger, lease.until):
                    self._drop(lease)
                else:
                    idle += not lease.node.is_at_work(threads)
        return idle

    def _could_be(self, lease: Lease, nodes: frozenset[str]) -> bool:
        """Whether a lease is on one of such nodes, or may be placed there."""
        if lease.node is not None:
            return lease.node.name in nodes
        return lease.places is None or bool(lease.places & nodes)

    def _take_back(self, leases: list[Lease], idle: int, now: float) -> None:
        """Ask nodes for jobs that wait there: behind one that takes long, or though others have nothing to do.

        Args:
            leases: of one number of threads.
            idle: how many of them have nothing to do.
            now: the time (monotonic).
        """
        for lease in leases:
            held_up = lease.is_held_up(now, _TAKE_BACK_S)
            if lease.node is None or not lease.jobs or not (held_up or idle):
                continue
            # One that is alone waits only where others have the cores.
            if len(lease.jobs) == 1 and not lease.node.is_at_work(lease.threads):
                continue
            for job in sorted(lease.jobs, key=lambda job: job.order):
                waits = not (job.seen_running or job.asked_back or job.cancelling)
                if waits and (held_up or (idle > 0 and now - job.sent > _TAKE_BACK_S)):
                    job.asked_back = True
                    idle -= 1
                    lease.node.outbox.append(("take back", job.order))

    def _drop(self, lease: Lease) -> None:
        del self._leases[lease.number]
        self._link.release_lease(lease.number)

    def _drop_all(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            self._drop(lease)

    # --- what the engine tells ---

    def placed(self, number: int, name: str) -> None:
        """A lease has its place on a node, the first or another one."""
        lease = self._leases.get(number)
        if lease is None:
            return  # given back meanwhile
        node = self._nodes.get(name)
        if lease.node is not None:
            # The engine has moved it: what it had is lost with its node, of which we shall hear.
            for job in list(lease.jobs):
                lease.remove(job)
        if node is None:
            lease.node, lease.place, lease.placed = None, name, time.monotonic()
            return
        lease.node, lease.place, lease.placed = node, None, math.inf
        lease.idle_since = time.monotonic()
        lease.until = lease.idle_since + _TERM_S
        self._failed = 0

    def failed(self, number: int, why: str | None) -> int | None:
        """A lease has no place, and will not get one.

        Args:
            number: its number.
            why: the reason; None: no fault of its own.

        Returns:
            The number of threads of which there is no getting a lease; None: another one will do.
        """
        lease = self._leases.pop(number, None)
        if lease is None:
            return None
        self._link.release_lease(number)
        _log.info("lease %s has failed: %s", number, why)
        if lease.jobs:
            return None  # they go on at their node, or are lost with it
        if why is None:
            return None  # the cluster begins anew: another is asked for
        self._failed += 1
        if self._failed < _MOST_FAILED or self._queues.head(lease.threads) is None:
            return None
        self._failed = 0
        return lease.threads

    def node_has_come(self, name: str) -> None:
        """A node is there, on which the engine may have placed leases already."""
        for lease in list(self._leases.values()):
            if lease.place == name:
                self.placed(lease.number, name)
        self._refit()

    def node_has_gone(self, name: str) -> None:
        """A node is there no more."""
        self._drop_all(
            lease
            for lease in list(self._leases.values())
            if lease.place == name or (lease.node is not None and lease.node.name == name)
        )
        self._refit()

    def _refit(self) -> None:
        """Nodes have come or gone: what waits for some of them only, and would do with others, is asked for anew."""
        for lease in list(self._leases.values()):
            if not lease.waits or lease.places is None:
                continue
            nodes = self._fitting(lease.threads, lease.memory)
            if nodes and nodes <= lease.places:
                lease.places = self._places(nodes)
            else:
                self._drop(lease)
