"""The child side: what runs in a lane's worker process.

It imports as little as it can, and knows nothing of batches, the command line or Qiskit.  `process` makes a fresh
interpreter a worker, `serve` runs its jobs, `chunk` runs many items as one job.
"""
