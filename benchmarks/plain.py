"""What the plain processes of `benchmarks.machine` run; it imports next to nothing."""

from __future__ import annotations

import pickle
import socket
import sys

__all__ = ["echo", "main", "work"]


def echo(channel: socket.socket, size: int) -> None:
    """Send back whatever comes, messages of that many bytes."""
    receive, send = channel.recv, channel.send
    buffer = 16 * size
    while data := receive(buffer):
        send(data)


def work() -> None:
    """Do the work that comes: a function and its lists of arguments, pickled; answer with the sum of the results."""
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        total = sum(function(*args) for args in arguments)
        pickle.dump(total, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def main() -> None:
    """``echo`` with a socket's number and a size, or ``work``."""
    if sys.argv[1] == "echo":
        with socket.socket(fileno=int(sys.argv[2])) as channel:
            echo(channel, int(sys.argv[3]))
    else:
        work()
