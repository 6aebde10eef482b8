"""The ten lines that a user of the library writes first.

No ``if __name__ == "__main__"`` is needed: workers do not import the script.
"""

from jobrunner import PrimitiveJob, gather


def count_primes(below: int) -> int:
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, below))


jobs = [PrimitiveJob(count_primes, below) for below in (10_000, 20_000, 30_000)]
for job in jobs:
    job.submit()
print("primes:", gather(jobs))

endless = PrimitiveJob(count_primes, 10**12)
endless.submit()
print("cancelled:", endless.cancel(), "-", endless.status().name)
print("the first job took", f"{jobs[0].report().run_s:.2f} s, and its status is", jobs[0].status().name)
