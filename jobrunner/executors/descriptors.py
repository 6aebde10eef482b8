"""Room for the descriptors that lanes need."""

from __future__ import annotations

import contextlib

__all__ = ["reserve_descriptors"]

# A lane's channel, control, descriptors' channel, page, stack, tokens, output and pidfd, and loky's queues, pipes and
# locks for its worker.
_PER_LANE = 28
# What the rest of the program may need meanwhile.
_RESERVE = 128


def reserve_descriptors(lanes: int) -> None:
    """See that this process may open as many descriptors as `lanes` lanes need, raising its soft limit if it must.

    Raises:
        ValueError: the hard limit is too low; the message has the arithmetic.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = lanes * _PER_LANE + _RESERVE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"{lanes} workers (spares included) need about {lanes} × {_PER_LANE} + {_RESERVE} = {needed} file "
            f"descriptors, and this process may open {hard} at most (ulimit -Hn): ask for fewer workers"
        )
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
