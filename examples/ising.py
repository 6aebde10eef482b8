"""The two-dimensional Ising model on a square torus, by Metropolis sampling, against its exact solution.

The energy is H = -sum over bonds of s_i s_j with s = ±1 (coupling and Boltzmann's constant are 1, no field).  Several
independent copies of the lattice are simulated at once; updating all even sites, then all odd sites (a checkerboard:
no two of one colour are neighbours) makes each half-sweep a handful of NumPy operations.

Run the batch on all cores::

    jobrunner run examples/ising.toml

or this file, for a short check of a few temperatures::

    python examples/ising.py

Sources: N. Metropolis et al., J. Chem. Phys. 21, 1087 (1953); L. Onsager, Phys. Rev. 65, 117 (1944) for the energy;
B. Kaufman, Phys. Rev. 76, 1232 (1949) for the partition function of a finite torus; C. N. Yang, Phys. Rev. 85, 808
(1952) for the magnetisation; K. Binder, Z. Phys. B 43, 119 (1981) for the cumulant; B. Efron, The Jackknife (1982).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Where the infinite lattice orders: 2 / ln(1 + sqrt 2).
CRITICAL_TEMPERATURE = 2.0 / math.log1p(math.sqrt(2.0))

_Spins = NDArray[np.int8]


def simulate(
    size: int, temperature: float, rng: np.random.Generator, sweeps: int = 4000, replicas: int = 32
) -> dict[str, float]:
    """Sample one lattice size at one temperature.

    Args:
        size: sites along each side; even, at least 4.
        temperature: in units of the coupling, above 0.
        rng: where the random numbers come from.
        sweeps: measured sweeps of each copy; a third as many go before, unmeasured.
        replicas: independent copies of the lattice, at least 2.  Errors come from their spread, and are right however
            long the sampling remembers its past.

    Returns:
        Per site ``energy``, ``magnetisation`` (its absolute value) and ``susceptibility``, and ``binder``, the cumulant
        1 - <m^4> / (3 <m^2>^2); each with its standard error in ``..._error``.  Beside them ``energy_exact`` of this
        finite lattice, ``sigmas`` (how many standard errors the energy is off), and ``magnetisation_exact`` of the
        infinite lattice.

    Raises:
        ValueError: an argument is outside its range.

    Example:
        >>> result = simulate(8, 5.0, np.random.default_rng(1), sweeps=500, replicas=8)
        >>> abs(result["energy"] - result["energy_exact"]) < 5 * result["energy_error"]
        True
    """
    if size < 4 or size % 2:
        raise ValueError(f"size must be even and at least 4, not {size}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if replicas < 2 or sweeps < 1:
        raise ValueError(f"expected at least 2 replicas and 1 sweep, not {replicas} and {sweeps}")
    # All up: a start at random can freeze in stripes, which Metropolis sampling takes ages to leave.
    even = np.ones((replicas, size, size // 2), dtype=np.int8)
    odd = even.copy()
    # The chance to flip a spin s whose neighbours sum up to n, at s * n = -4, -2, 0, 2, 4.
    chances = np.exp(-2.0 / temperature * np.arange(-4, 5, 2)).clip(max=1.0).astype(np.float32)
    for _ in range(max(1, sweeps // 3)):
        _sweep(even, odd, chances, rng)
    # Sums over the sweeps, for each copy, of e, |m|, m^2, m^4.
    sums = np.zeros((4, replicas))
    for _ in range(sweeps):
        _sweep(even, odd, chances, rng)
        # Every bond joins an even and an odd site.
        energy = -np.einsum("rij,rij->r", even, _neighbours(odd, even_sites=True), dtype=np.int64) / size**2
        m = (even.sum(axis=(1, 2), dtype=np.int64) + odd.sum(axis=(1, 2), dtype=np.int64)) / size**2
        sums += np.stack([energy, np.abs(m), m**2, m**4])
    estimates = _estimates(sums / sweeps, sites=size**2, temperature=temperature)
    exact = finite_energy(size, temperature)
    off, error = estimates["energy"] - exact, estimates["energy_error"]
    return {
        "energy": estimates["energy"],
        "energy_error": error,
        "energy_exact": exact,
        "sigmas": round(off / error, 2) if error else 0.0,
        "magnetisation": estimates["magnetisation"],
        "magnetisation_error": estimates["magnetisation_error"],
        "magnetisation_exact": yang_magnetisation(temperature),
        **estimates,
    }


def _sweep(even: _Spins, odd: _Spins, chances: NDArray[np.float32], rng: np.random.Generator) -> None:
    for spins, others, even_sites in ((even, odd, True), (odd, even, False)):
        alignment = spins * _neighbours(others, even_sites=even_sites)
        flip = rng.random(spins.shape, dtype=np.float32) < chances.take((alignment + 4) >> 1, mode="clip")
        spins *= 1 - 2 * flip.view(np.int8)


def _neighbours(others: _Spins, *, even_sites: bool) -> _Spins:
    """The sum of the four neighbours of each site of one colour, from the sites of the other colour.

    Site (i, j) has the colour (i + j) mod 2, and the column j // 2 among those of its colour.  Up and down are in the
    same column; left and right are in the same one, and the one before or after it, by the parity of the row.
    """
    total = others + np.roll(others, 1, axis=1) + np.roll(others, -1, axis=1)
    before, after = (slice(0, None, 2), slice(1, None, 2)) if even_sites else (slice(1, None, 2), slice(0, None, 2))
    total[:, before] += np.roll(others[:, before], 1, axis=2)
    total[:, after] += np.roll(others[:, after], -1, axis=2)
    return total


def _estimates(means: NDArray[np.float64], sites: int, temperature: float) -> dict[str, float]:
    """The observables and their jackknife errors, from each copy's means of e, |m|, m^2, m^4."""
    copies = means.shape[1]
    observables: dict[str, Callable[[NDArray[np.float64]], Any]] = {
        "energy": lambda a: a[0],
        "magnetisation": lambda a: a[1],
        "susceptibility": lambda a: sites / temperature * (a[2] - a[1] ** 2),
        "binder": lambda a: 1.0 - a[3] / (3.0 * a[2] ** 2),
    }
    leave_one_out = (means.sum(axis=1, keepdims=True) - means) / (copies - 1)
    result: dict[str, float] = {}
    for name, function in observables.items():
        result[name] = float(function(means.mean(axis=1)))
        spread = function(leave_one_out)
        result[f"{name}_error"] = math.sqrt((copies - 1) * float(np.mean((spread - spread.mean()) ** 2)))
    return result


def onsager_energy(temperature: float) -> float:
    """The exact energy per site of the infinite lattice (Onsager 1944).

    u = -coth(2K) [1 + (2 / pi) (2 tanh^2(2K) - 1) F(k)], with K = 1 / temperature, k = 2 sinh(2K) / cosh^2(2K), and F
    the complete elliptic integral of the first kind.

    Example:
        >>> round(onsager_energy(CRITICAL_TEMPERATURE), 6), round(onsager_energy(2.0), 6)
        (-1.414214, -1.745565)
    """
    x = 2.0 / temperature
    tanh = math.tanh(x)
    # k' = sqrt(1 - k^2) = |2 tanh^2 - 1|; where it vanishes, so does its product with F.
    complement = 2.0 * tanh**2 - 1.0
    if abs(complement) < 1e-12:
        return -1.0 / tanh
    return -(1.0 + 2.0 / math.pi * complement * _elliptic_k(abs(complement))) / tanh


def _elliptic_k(complement: float) -> float:
    """F of the modulus sqrt(1 - complement^2), as pi / 2 over an arithmetic-geometric mean (Gauss)."""
    a, b = 1.0, complement
    while abs(a - b) > 1e-15 * a:
        a, b = (a + b) / 2.0, math.sqrt(a * b)
    return math.pi / (2.0 * a)


def yang_magnetisation(temperature: float) -> float:
    """The exact spontaneous magnetisation per site of the infinite lattice: (1 - sinh(2K)^-4)^(1/8), 0 when disordered.

    Example:
        >>> round(yang_magnetisation(2.0), 6), yang_magnetisation(2.5)
        (0.911319, 0.0)
    """
    if temperature >= CRITICAL_TEMPERATURE:
        return 0.0
    return float((1.0 - math.sinh(2.0 / temperature) ** -4) ** 0.125)


def finite_energy(size: int, temperature: float) -> float:
    """The exact energy per site of a size by size torus (Kaufman 1949): -d ln Z / dK over the number of sites.

    Z = (1/2) (2 sinh 2K)^(N/2) (Z1 + Z2 + Z3 + Z4), where Z1, Z2 are the products over r of 2 cosh and 2 sinh of
    (size / 2) g at odd r, and Z3, Z4 at even r; cosh g_r = cosh^2(2K) / sinh(2K) - cos(pi r / size).

    Example:
        >>> abs(finite_energy(64, 3.0) - onsager_energy(3.0)) < 1e-12
        True
    """
    coupling = 1.0 / temperature
    sinh, cosh = math.sinh(2.0 * coupling), math.cosh(2.0 * coupling)
    r = np.arange(2 * size)
    cosh_g = cosh**2 / sinh - np.cos(np.pi * r / size)
    g = np.arccosh(np.maximum(cosh_g, 1.0))
    slope = np.zeros(2 * size)
    slope[1:] = 2.0 * cosh * (2.0 - cosh**2 / sinh**2) / np.sinh(g[1:])  # d(cosh g)/dK over d(cosh g)/dg
    # At r = 0 the root has a sign, which changes at the critical temperature: g_0 = 2K + ln tanh K.
    g[0] = 2.0 * coupling + math.log(math.tanh(coupling))
    slope[0] = 2.0 + 2.0 / sinh
    # Each product as sign and logarithm, and its logarithmic derivative by K; all relative to the largest.
    half = size / 2.0
    signs: list[float] = []
    logarithms: list[float] = []
    derivatives: list[float] = []
    for rows in (slice(1, None, 2), slice(0, None, 2)):
        x, dx = half * g[rows], half * slope[rows]
        x = np.where(x == 0, 1e-150, x)  # exactly critical: 2 sinh(x) vanishes, its derivative doesn't
        signs += [1.0, float(np.prod(np.sign(x)))]
        logarithms.append(np.sum(np.logaddexp(x, -x)))  # of 2 cosh
        logarithms.append(np.sum(np.abs(x) + np.log(-np.expm1(-2.0 * np.abs(x)))))  # of |2 sinh|
        derivatives += [np.sum(dx * np.tanh(x)), np.sum(dx / np.tanh(x))]
    weights = np.array(signs) * np.exp(np.array(logarithms) - max(logarithms))
    return float(-cosh / sinh - (weights @ np.array(derivatives)) / weights.sum() / size**2)


def check(results: Iterable[tuple[Mapping[str, Any], Mapping[str, float]]], sigmas: float = 5.0) -> list[str]:
    """Compare simulated results with the exact solution.

    The energy is compared with that of the finite lattice, at every temperature.  The magnetisation is compared with
    the infinite lattice's, where a lattice of that size can't tell: below 0.9 of the critical temperature, and from 16
    sites a side on.

    Args:
        results: parameters (with ``size`` and ``temperature``) and what `simulate` returned for them.
        sigmas: how many standard errors a result may be off.

    Returns:
        A sentence on each result that is off by more; an empty list if all agree.
    """
    wrong = []
    for parameters, result in results:
        size, temperature = parameters["size"], parameters["temperature"]
        compared = {"energy": finite_energy(size, temperature)}
        if size >= 16 and temperature < 0.9 * CRITICAL_TEMPERATURE:
            compared["magnetisation"] = yang_magnetisation(temperature)
        for name, exact in compared.items():
            off, error = result[name] - exact, result[f"{name}_error"]
            if abs(off) > sigmas * error:
                wrong.append(
                    f"{name} at size {size}, temperature {temperature}: {result[name]:.6f}, off by {off:+.6f} "
                    f"with a standard error of {error:.6f}"
                )
    return wrong


def main() -> None:
    """A short run of a few points on all cores, printed and checked."""
    import jobrunner

    points = [{"size": 16, "temperature": temperature} for temperature in (1.5, 2.0, 2.269, 2.5, 3.5)]
    jobs = [
        jobrunner.PrimitiveJob(simulate, **point, rng=np.random.default_rng([16, i]), sweeps=2000)
        for i, point in enumerate(points)
    ]
    for job in jobs:
        job.submit()
    print("    T        energy      exact  sigmas    |m|")
    results = list(zip(points, jobrunner.gather(jobs), strict=True))
    for point, result in results:
        print(
            f"{point['temperature']:5.3f}  {result['energy']:9.5f} ±{result['energy_error']:.5f}"
            f"  {result['energy_exact']:8.5f}  {result['sigmas']:+5.1f}  {result['magnetisation']:.4f}"
        )
    wrong = check(results)
    print("\n".join(wrong) if wrong else "all energies agree with the exact solution")


if __name__ == "__main__":
    main()
