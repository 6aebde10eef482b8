"""The interpreter that one sample runs in; `benchmarks.runner` starts it.

It is started by ``python -c``, so that there is no main module for a pool's workers to import again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from benchmarks.cases import CASES, Scale
from benchmarks.peers import PEERS

__all__ = ["main"]


def main() -> None:
    """Take the sample that the command line describes, as JSON, and write the measurement to the file it names."""
    order = json.loads(sys.argv[1])
    peer = PEERS[order["peer"]](order["workers"])
    measurement = CASES[order["case"]].measure(peer, Scale(**order["scale"]))
    Path(order["answer"]).write_text(json.dumps(dataclasses.asdict(measurement)), encoding="utf-8")
