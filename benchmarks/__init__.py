"""Comparisons of jobrunner with other process pools, in one run on the reader's machine.

::

    __main__   the command line: which cases, which peers, how often
    runner     plans the samples, and runs each in a fresh interpreter, peers in turn
       sample  ... that interpreter: one case, one peer, one measurement
       cases   what is measured, and when it makes sense
       peers   one class a library: how it is started, given jobs, cancelled
    report     medians, spreads and ratios; the table, and the JSON

Run it with ``python -m benchmarks`` from the repository's root.  A new case is a function in `cases`, a new peer a
class in `peers`; nothing else has to know of it.  `benchmarks.faults` compares what becomes of jobs that go wrong.
"""
