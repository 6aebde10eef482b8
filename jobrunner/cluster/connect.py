"""Finding out soon, and saying why, that a cluster can't be reached."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from jobrunner.errors import JobRunnerError

__all__ = ["check_reachable", "unreachable"]


def check_reachable(address: str, what: str, remedy: str, timeout: float) -> None:
    """Fail where nobody listens.

    Args:
        address: as a URL; others than of TCP and TLS are not looked at.
        what: is to be there, for the error.
        remedy: how to have one, for the error.
        timeout: seconds.

    Raises:
        JobRunnerError: nobody does.
    """
    parts = urlsplit(address)
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
