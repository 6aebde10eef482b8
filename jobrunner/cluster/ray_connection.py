"""The connection of this process with Ray, which is one, and may be others' too."""

from __future__ import annotations

import logging
import os
import socket
import threading

from jobrunner.cluster.connect import AddressError, check_reachable, fault_of, in_time, unreachable
from jobrunner.errors import JobRunnerError

__all__ = ["CONNECT_S", "connections", "current_connection"]

#: Connecting gives up after so many seconds.
CONNECT_S = 5.0

_START = "`ray start --head` starts one; address='local' starts one in this process"


#: Addresses that are none: the cluster that runs on this machine, and one that is started.
_WORDS = ("auto", "local")


class _Connections:
    """How many links use the connection with Ray that one of them has made in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Of the connection that there is, as far as is known: others than links may begin and end one.
        self._identity = ""
        self._users = 0
        self._ours = False
        self._pid = os.getpid()

    def begin(self, address: str | None) -> str:
        """Connect with a cluster, unless this process is connected.

        Returns:
            What the connection is known by.

        Raises:
            AddressError: it is no address of a Ray cluster.
            JobRunnerError: nobody answers, or the process is connected with another cluster.
        """
        import ray

        if self._pid != os.getpid() and ray.is_initialized():
            raise JobRunnerError(
                "Ray does not survive a fork: connect with it in a process that was not forked from one"
            )
        _check(address)
        with self._lock:
            if not ray.is_initialized():
                where = address or os.environ.get("RAY_ADDRESS") or "auto"
                _check(where)
                if where not in _WORDS:
                    check_reachable(where, "Ray cluster", _START, CONNECT_S / 2)
                init_log = logging.getLogger("ray._private.worker")
                init_log.addFilter(_is_no_remark)
                try:
                    in_time(
                        lambda: ray.init(
                            address=where, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False
                        ),
                        # To start one takes longer than to find one.
                        60 if where == "local" else CONNECT_S + 1,
                    )
                except Exception as error:
                    raise unreachable(where, "Ray cluster", _START, error) from error
                finally:
                    init_log.removeFilter(_is_no_remark)
                self._identity, self._ours, self._users = current_connection(), True, 0
            elif address not in (None, "auto", "local"):
                here = ray.get_runtime_context().gcs_address
                if not _is_same(address, here):
                    raise JobRunnerError(
                        f"this process is connected with the Ray cluster at {here}, and can't be with {address} at the "
                        "same time: call ray.shutdown() first"
                    )
            if self._identity != current_connection():
                self._identity, self._ours, self._users = current_connection(), False, 0
            self._users += 1
            return self._identity

    def end(self, identity: str) -> None:
        """Let go of a connection; it is closed with the last, if it was made here."""
        import ray

        with self._lock:
            if identity != self._identity or identity != current_connection():
                return  # somebody else has closed it
            self._users -= 1
            if self._ours and not self._users:
                self._ours = False
                ray.shutdown()


def _check(address: str | None) -> None:
    """Refuse what is no address of a Ray cluster, of which Ray would say what misleads.

    Raises:
        AddressError: it is none.
    """
    if not address or address in _WORDS:
        return
    fault = fault_of(address)
    if address.startswith("ray://"):
        fault = "is of Ray Client, which is not supported (run on a node of the cluster)"
    elif "://" in address:
        fault = "is no address of a Ray cluster"
    if fault is not None:
        raise AddressError(
            f"{address} {fault}: expected host:port of the cluster's head, such as 10.0.0.1:6379, or auto"
        )


def current_connection() -> str:
    """What the connection of this process with Ray is known by; empty: there is none."""
    import ray

    if not ray.is_initialized():
        return ""
    try:
        return str(ray.get_runtime_context().get_worker_id())
    except Exception:  # it is being closed just now
        return ""


def _is_no_remark(record: logging.LogRecord) -> bool:
    """Whether a log record is none of Ray's that it is not connected on the main thread: that is on purpose."""
    return "SIGTERM handler is not set" not in record.getMessage()


def _is_same(address: str, here: str) -> bool:
    """Whether an address is of the cluster that Ray knows as `here`, perhaps by another name."""
    host, _, port = address.rpartition(":")
    own, _, own_port = here.rpartition(":")
    try:
        return port == own_port and (host in (own, "localhost", "127.0.0.1") or socket.gethostbyname(host) == own)
    except OSError:
        return False


connections = _Connections()
