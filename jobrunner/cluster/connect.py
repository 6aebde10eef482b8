"""Finding out soon, and saying why, that a cluster can't be reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from jobrunner.errors import JobRunnerError

__all__ = ["AddressError", "check_reachable", "fault_of", "in_time", "unreachable"]

T = TypeVar("T")


class AddressError(JobRunnerError, ValueError):
    """What is given as a cluster's address is none, or none is given where there has to be one."""


def fault_of(place: str) -> str | None:
    """What is wrong with a ``host:port``, in words that follow on it; None: nothing."""
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):
        return "has no port"
    if not host:
        return "has no host"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        return "has a port that is no number from 1 to 65535"
    return None


def check_reachable(address: str, what: str, remedy: str, timeout: float) -> None:
    """Fail where nobody listens.

    Args:
        address: ``host:port``, or a URL; others than of TCP and TLS are not looked at.
        what: is to be there, for the error.
        remedy: how to have one, for the error.
        timeout: seconds.

    Raises:
        JobRunnerError: nobody does.
    """
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme not in ("tcp", "tls"):
        return
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=timeout).close()
    except (OSError, ValueError, OverflowError) as error:
        raise unreachable(address, what, remedy, error) from error


def unreachable(address: str, what: str, remedy: str, error: BaseException) -> JobRunnerError:
    """The error for a cluster that does not answer."""
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return JobRunnerError(
        f"no {what} answers at {address} ({told}). Check that it runs ({remedy}), and that this machine may reach it."
    )


def in_time(call: Callable[[], T], seconds: float) -> T:
    """What a call returns or raises, on a thread of its own, which is left behind where it takes longer.

    Raises:
        TimeoutError: it does.
    """
    returned: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="jobrunner-connect", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} s")
    if raised:
        raise raised[0]
    return returned[0]
