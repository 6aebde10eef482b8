"""How long jobs take, and from that how many a lease is sent at a time.  The keeper's thread alone."""

from __future__ import annotations

__all__ = ["Lengths"]

#: A lease is sent about so much work at a time, in seconds; a job that takes longer is alone with it.
_LONG_S = 0.05
#: The same for jobs that are not tried again, unless they are tiny: what was sent to a node that is lost fails with it.
_LONG_ONCE_S = 0.02
_TINY_S = 0.002
#: What a job costs a node at the least, in seconds; and the most jobs that a lease is sent.
_LEAST_S = 1e-4
_MOST_SENT = 512


class Lengths:
    """How long jobs of each name take, smoothed."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def took(self, name: str, seconds: float) -> None:
        """A job has run for so long."""
        before = self._seconds.get(name, seconds)
        # Slow to believe that they are short, quick to believe that they are long.
        share = 0.5 if seconds > before else 0.1
        self._seconds[name] = before + share * (seconds - before)

    def most_at_once(self, name: str, retries: int) -> int:
        """How many jobs of a name a lease may have at a time; one where it is not known how long they take.

        Args:
            name: of the jobs.
            retries: how often they are tried again.
        """
        seconds = self._seconds.get(name)
        if seconds is None:
            return 1
        long = _LONG_S if retries or seconds < _TINY_S else _LONG_ONCE_S
        if seconds >= long:
            return 1
        return min(_MOST_SENT, 1 + int(long / max(seconds, _LEAST_S)))
