"""One function over many parameter points.

::

    points_file.py  .csv, .jsonl ──┐                                      ┌── store.py     reading: Store
    spec.py         a TOML file ───┤                       SQLite file ◀──┼── registry.py  what the batch is
    values.py       -p key=text ───┴─▶ points.py                ▲         └── ledger.py    claims and outcomes
    target.py   module:function ──┐       │                     │
    seeds.py    each point's seed ┴───────┴▶ batch.py   Batch ──┴─▶ run.py ──submit──▶ an executor
                                                │
                   export.py  output.py  replicates.py  columns.py     results as files, means, columns

Example:
    >>> import concurrent.futures
    >>> from jobrunner.batch import run_points, sweep
    >>> def square(x):
    ...     return x * x
    >>> with concurrent.futures.ThreadPoolExecutor() as executor:
    ...     summary = run_points(square, sweep(x=range(100)), executor)
    >>> summary.done
    100
"""

from jobrunner.batch.batch import DEFAULT_STORE, Batch
from jobrunner.batch.columns import flatten, to_json
from jobrunner.batch.identity import identify
from jobrunner.batch.outcomes import Outcome, OutcomeStatus, Summary
from jobrunner.batch.output import OutputWriter, check_output, open_output, outcome_as_json
from jobrunner.batch.points import Points, as_points, did_you_mean, point_key, sweep, zip_points
from jobrunner.batch.points_file import read_points
from jobrunner.batch.replicates import aggregate, group
from jobrunner.batch.run import StopRequest, run_points
from jobrunner.batch.seeds import Seeding, point_seed
from jobrunner.batch.spec import ENGINES, Spec, load_spec
from jobrunner.batch.target import Target, check_parameters, load_target
from jobrunner.batch.tellers import is_tqdm, misuse
from jobrunner.batch.values import canonical_json, parse_range, parse_scalar, parse_values

__all__ = [
    "DEFAULT_STORE",
    "ENGINES",
    "Batch",
    "Outcome",
    "OutcomeStatus",
    "OutputWriter",
    "Points",
    "Seeding",
    "Spec",
    "StopRequest",
    "Summary",
    "Target",
    "aggregate",
    "as_points",
    "canonical_json",
    "check_output",
    "check_parameters",
    "did_you_mean",
    "flatten",
    "group",
    "identify",
    "is_tqdm",
    "load_spec",
    "load_target",
    "misuse",
    "open_output",
    "outcome_as_json",
    "parse_range",
    "parse_scalar",
    "parse_values",
    "point_key",
    "point_seed",
    "read_points",
    "run_points",
    "sweep",
    "to_json",
    "zip_points",
]
