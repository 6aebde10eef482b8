"""Which Dask cluster is meant, and the ends of clients that could not connect with it."""

from __future__ import annotations

import contextlib
from typing import Any

from jobrunner.cluster.connect import AddressError, fault_of
from jobrunner.errors import JobRunnerError

__all__ = ["START", "address_of", "default_place", "end_client", "import_distributed", "is_client"]

_SCHEMES = ("tcp", "tls", "ws", "wss", "ucx", "ucxx", "inproc")
#: How to get a scheduler, for people.
START = "`dask scheduler` starts one and prints its address"


def end_client(client: Any) -> None:
    """End a client that could not connect, and may still try to."""
    with contextlib.suppress(Exception):
        client.status = "closed"
        client.close(timeout=0)
    with contextlib.suppress(Exception):
        client._loop_runner.stop()


def is_client(where: Any) -> bool:
    """Whether it is a `distributed.Client`."""
    from distributed import Client

    return isinstance(where, Client)


def address_of(where: Any) -> str:
    """The scheduler's address.

    Raises:
        AddressError: it is no scheduler's.
        JobRunnerError: there is none.
        TypeError: it is nothing that has one.
    """
    if isinstance(where, str):
        named = where if "://" in where else f"tcp://{where}"
        scheme, _, rest = named.partition("://")
        if scheme not in _SCHEMES:
            raise AddressError(
                f"{named} is no address of a Dask scheduler, which begins with {', '.join(_SCHEMES)} (http is of its "
                "dashboard): tcp://host:8786, as the scheduler prints it when it starts"
            )
        fault = fault_of(rest) if scheme in ("tcp", "tls") else None
        if fault is not None:
            raise AddressError(
                f"{named} {fault}: expected a Dask scheduler's address, {scheme}://host:8786, as the scheduler prints "
                "it when it starts"
            )
        return named
    if is_client(where):
        if where.scheduler is None:
            raise JobRunnerError(f"the Client {where!r} is not connected to a scheduler")
        return str(where.scheduler.address)
    address = getattr(where, "scheduler_address", None)
    if isinstance(address, str) and address:
        return address
    raise TypeError(f"expected a scheduler's address, a distributed.Client or a cluster object, not {where!r}")


def default_place() -> Any:
    """The cluster of the Dask client that this process uses, or that Dask's configuration names.

    Raises:
        AddressError: there is none.
    """
    import dask.config
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        pass
    address = dask.config.get("scheduler-address", None)
    if address:
        return address
    raise AddressError(
        "no Dask cluster is named, this process has no Dask client, and Dask's configuration (DASK_SCHEDULER_ADDRESS) "
        "names none: pass an address (tcp://host:8786; --address on the command line), a distributed.Client, or a "
        "cluster object"
    )


def import_distributed() -> None:
    """Raise an ImportError that names the extra where Dask's distributed can't be imported."""
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"DaskExecutor needs Dask's distributed, which can't be imported ({error}): pip install 'jobrunner[dask]'"
        ) from error
