"""The interpreter that samples are taken in; `benchmarks.runner` starts it.

It is started by ``python -c``, so that there is no main module for a pool's workers to import again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from benchmarks.cases import CASES, Case, Measured, Scale
from benchmarks.cases.base import warm
from benchmarks.peers import ALL_PEERS, MACHINE

__all__ = ["main"]


def main() -> None:
    """Take the samples that the command line describes, as JSON: the cases of a sitting, for one peer.

    A line of JSON a case goes to the file that it names when the case begins, and another with what came out.
    """
    order = json.loads(sys.argv[1])
    cases = [CASES[name] for name in order["cases"]]
    scale = Scale(**order["scale"])
    workers: int = order["workers"]
    with open(order["answer"], "a", encoding="utf-8") as answer, contextlib.ExitStack() as stack:
        if order["peer"] == MACHINE:
            for case in cases:
                assert case.limit is not None
                _take(case, workers, case.limit, answer, scale)
            return
        peer = ALL_PEERS[order["peer"]](workers)
        if cases[0].sitting:
            faulthandler.dump_traceback_later(order["start_s"], exit=True)
            stack.enter_context(warm(peer, scale))
        for case in cases:
            _take(case, peer, case.measure, answer, scale)
        # The pool must close in time, too.
        faulthandler.dump_traceback_later(order["close_s"], exit=True)


def _take(case: Case, subject: Any, measure: Callable[[Any, Scale], Measured], answer: TextIO, scale: Scale) -> None:
    """Take one sample; the whole interpreter ends if that takes too long."""
    _tell(answer, case=case.name, began=time.time())
    # By a thread that needs no GIL, whatever hangs.
    faulthandler.dump_traceback_later(case.limit_s, exit=True)
    try:
        measured = measure(subject, scale)
    except Exception as error:
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        _tell(answer, case=case.name, error=said[:200])
    else:
        _tell(answer, case=case.name, **dataclasses.asdict(measured))
    finally:
        faulthandler.cancel_dump_traceback_later()


def _tell(answer: TextIO, **what: Any) -> None:
    answer.write(json.dumps(what) + "\n")
    answer.flush()
