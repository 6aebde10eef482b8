"""Comparisons of jobrunner with other process pools, in one run on the reader's machine.

::

    __main__     the command line: which cases, which peers, how often
    runner       plans the samples, takes them in fresh interpreters, peers in turn, and ends what they leave
       sample    ... such an interpreter: one peer, the cases of a sitting
       cases/    what is measured, a file a theme, and when it makes sense
       peers/    one class a library: how it is started, given jobs, cancelled
       machine   what no pool can do better: an echo, a copy, plain processes (`plain`)
    results      samples, medians, spreads and ratios; pyperf's JSON, both ways; `units` says how values are shown
    targets      what jobrunner must show, judged by a run
    report, plots, page   the figures as tables, as pictures, as the page of the documentation

Run it with ``python -m benchmarks`` from the repository's root.  A new case is a function in `cases`, a new peer a
class in `peers`; nothing else has to know of it, but pictures and targets.  `benchmarks.faults` compares what becomes
of jobs that go wrong, `benchmarks.batches` measures what a store costs, and `benchmarks.agreement` compares what
``jobrunner bench`` measures with what pyperf does (`kernels`, `pyperf_kernels`).
"""
