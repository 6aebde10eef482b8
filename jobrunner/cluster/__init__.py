"""Executors past one machine: the lanes of `LocalExecutor` on the nodes of a Dask or Ray cluster.

::

    calling process                                       a node: a Dask worker, or a Ray actor
    ClusterExecutor ──▶ Keeper (one thread) ──▶ Link ══ post, poll ══▶ Node ──▶ LocalExecutor ──▶ lanes
    futures ◀── settled by the keeper ◀── events ◀── Link ◀═══════════╝

    states of a job, as the keeper has them
    NEW ──▶ HELD (waits for other jobs) ──▶ QUEUED ──▶ SENT (to a node) ──▶ FINAL
                                              ▲            │
                                              └─ retry, or taken back, or its node was lost before it got it

The engine (Dask, Ray) starts what runs on its nodes, places *leases*, moves bytes, and tells of nodes that come and go.
A lease is a slot of a node that the engine has given us for a while: a task of Dask's, a placement group of Ray's; so
its scheduler counts what we use, others get their share, and a cluster that grows by demand sees ours.  A job goes to a
node that has a lease for it, and is there a job of a `LocalExecutor`: what that guarantees holds on the node.

Who owns what: jobs, nodes and leases belong to the keeper's thread, which everybody else talks to by its queue; a
node's jobs belong to the thread that posts to it, one message at a time.  The user's code runs on none of them.
"""
