"""The fault matrix: every way in which a job can go wrong, beside two healthy jobs, in jobrunner and its peers.

::

    __main__   the command line: which faults, which peers, how long a cell may take
    runner     runs each cell (a fault in a peer) in a fresh interpreter, and ends and counts what it leaves
       cell     ... that interpreter: a pool, the healthy jobs A and B, the faulty one; what goes wrong first
       stage    what the cell is doing, so that it is known where it hangs
       peers    how each library is given jobs with limits, waited for, and made to end a running job
    matrix     the faults as data: what runs, what is expected of it
       expected what a faulty job may come to, and the judgement
       jobs     what the faulty jobs do
       objects  arguments, results and exceptions that don't cross between processes
       state    what a job changes in its process, and how the next one sees it
       settings troubles of the calling process
    report     the table, the JSON and the Markdown

Run it with ``python -m benchmarks.faults`` from the repository's root.  A new fault is an entry in `matrix`.
"""
