"""What a job changes in its process, and how the next job sees it: a function that changes, one that looks.

What looks returns something comparable that survives a new worker: the same in every fresh worker of a pool.
"""

from __future__ import annotations

import importlib
import io
import os
import random
import resource
import signal
import sys
import tempfile
import warnings
from types import ModuleType
from typing import Any

__all__ = ["CHANGED", "seeded"]

#: What variables, paths and messages that a job leaves behind are called.
CHANGED = "left-by-a-job"
_VARIABLE = "LEFT_BY_A_JOB"
_SEED = 0


def _module(name: str) -> ModuleType | None:
    """An optional library, if it is there."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def change_directory() -> str:
    """Go elsewhere."""
    os.chdir("/")
    return "done"


def lose_directory() -> str:
    """Go to a directory that is then removed."""
    directory = tempfile.mkdtemp(prefix=CHANGED)
    os.chdir(directory)
    os.rmdir(directory)
    return "done"


def see_directory() -> str:
    """The name of the directory that this process is in."""
    try:
        return os.path.basename(os.getcwd())
    except FileNotFoundError:
        return "nowhere"


def change_environment() -> str:
    """Set a variable, change one, and remove one."""
    os.environ[_VARIABLE] = CHANGED
    os.environ["PATH"] += f":/{CHANGED}"
    os.environ.pop("HOME", None)
    return "done"


def see_environment() -> list[bool]:
    """What there is of the variables that `change_environment` touches."""
    return [_VARIABLE in os.environ, CHANGED in os.environ.get("PATH", ""), "HOME" in os.environ]


def ignore_sigterm() -> str:
    """Ignore SIGTERM from now on."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return "done"


def see_sigterm() -> str:
    """What happens on SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    # A function's address differs between workers.
    return getattr(handler, "__qualname__", str(handler))


def set_alarm() -> str:
    """Have a SIGALRM sent in a while."""
    signal.alarm(60)
    return "done"


def see_alarm() -> int:
    """Seconds until the SIGALRM; there is none afterwards."""
    return signal.alarm(0)


def block_signals() -> str:
    """Block signals on this thread."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM})
    return "done"


def see_blocked() -> list[int]:
    """The signals that are blocked."""
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def change_warnings() -> str:
    """Turn all warnings into errors."""
    warnings.simplefilter("error")
    return "done"


def see_warnings() -> int:
    """How many filters make errors of all warnings."""
    return [action for action, _, category, _, _ in warnings.filters if category is Warning].count("error")


def replace_stdout() -> str:
    """Let print() go nowhere."""
    sys.stdout = io.StringIO()
    return "done"


def close_stdout() -> str:
    """Close standard output, with its descriptor."""
    sys.stdout.close()
    return "done"


def redirect_stdout() -> str:
    """Let descriptor 1 be a file's."""
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
    return "done"


def see_stdout() -> list[Any]:
    """What sys.stdout is, and what descriptor 1 is open on."""
    try:
        place = os.fstat(1)
    except OSError:
        return [type(sys.stdout).__name__, "descriptor 1 is closed"]
    return [type(sys.stdout).__name__, sys.stdout.closed, place.st_dev, place.st_ino]


def change_umask() -> str:
    """Let new files be readable by nobody."""
    os.umask(0o777)
    return "done"


def see_umask() -> int:
    """The umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def limit_files() -> str:
    """Lower the soft limit of open files."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return "done"


def see_file_limit() -> int:
    """The soft limit of open files."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def limit_memory() -> str:
    """Lower the soft limit of the address space."""
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return "done"


def see_memory_limit() -> int:
    """The soft limit of the address space."""
    return resource.getrlimit(resource.RLIMIT_AS)[0]


def change_path() -> str:
    """Put a directory in front of all others that modules come from."""
    sys.path.insert(0, f"/{CHANGED}")
    return "done"


def see_path() -> bool:
    """Whether that directory is there."""
    return f"/{CHANGED}" in sys.path


def change_recursion_limit() -> str:
    """Set another recursion limit."""
    sys.setrecursionlimit(sys.getrecursionlimit() + 777)
    return "done"


def see_recursion_limit() -> int:
    """The recursion limit."""
    return sys.getrecursionlimit()


def seed_random() -> str:
    """Seed Python's generator."""
    random.seed(_SEED)
    return "done"


def draw_random() -> float:
    """A number of Python's generator."""
    return random.random()


def seed_numpy() -> str:
    """Seed NumPy's global generator."""
    numpy = _module("numpy")
    assert numpy is not None
    numpy.random.seed(_SEED)
    return "done"


def draw_numpy() -> float:
    """A number of NumPy's global generator."""
    numpy = _module("numpy")
    assert numpy is not None
    return float(numpy.random.random())


def seeded(drawn: float) -> bool:
    """Whether a number comes from a generator that a job has seeded."""
    generator = random.Random(_SEED)
    streams = [[generator.random() for _ in range(100)]]
    numpy = _module("numpy")
    if numpy is not None:
        streams.append(numpy.random.RandomState(_SEED).random_sample(100).tolist())
    return any(drawn in stream for stream in streams)


def change_blas_threads() -> str:
    """Let BLAS use another number of threads; without threadpoolctl, ask for it by the environment."""
    if see_blas_threads()[1:]:
        threadpoolctl = _module("threadpoolctl")
        assert threadpoolctl is not None
        threadpoolctl.threadpool_limits(1 if see_blas_threads()[1] != 1 else 2)
    os.environ["OMP_NUM_THREADS"] = "17"
    return "done"


def see_blas_threads() -> list[Any]:
    """What the environment asks for, and the threads of each BLAS in this process."""
    asked = os.environ.get("OMP_NUM_THREADS")
    threadpoolctl = _module("threadpoolctl")
    if threadpoolctl is None or _module("numpy") is None:
        return [asked]
    return [asked, *(pool["num_threads"] for pool in threadpoolctl.threadpool_info())]
