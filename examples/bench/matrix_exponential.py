"""The exponential of a dense matrix, three ways: which one is the fastest, at which size and norm?

A quantum state evolves by exp(-i H t), with H Hermitian; a Markov process by exp(Q t).  Three ways to such a matrix:

- `pade`: divide by a power of two until the norm is small, take a rational approximant, square it up again; six
  products and a system of equations at most, besides the squarings;
- `taylor`: the same with a polynomial, whose evaluation needs five products at most, but which has to start from a
  smaller norm, and so squares more often;
- `eigen`: diagonalise; its time doesn't depend on the norm, and it needs a full set of well-conditioned eigenvectors.

By size, for a random Hermitian matrix, whose 1-norm is about sqrt(size)::

    F=examples/bench/matrix_exponential.py
    jobrunner bench $F:pade $F:taylor $F:eigen --setup $F:random_exponent -p size=64,128,256

By evolution time, and so by norm, for the transverse-field Ising chain of 7 sites (a 128 by 128 matrix)::

    jobrunner bench $F:pade $F:taylor $F:eigen --setup $F:chain_exponent -p sites=7 -p time=0.01,1,100

What each costs in accuracy::

    python examples/bench/matrix_exponential.py

Sources: N. J. Higham, SIAM J. Matrix Anal. Appl. 26, 1179 (2005) for `pade`; P. Bader, S. Blanes and F. Casas,
Mathematics 7, 1174 (2019) for `taylor`; C. Moler and C. Van Loan, SIAM Review 45, 3 (2003) for all three and their
traps; P. Pfeuty, Annals of Physics 57, 79 (1970) for the chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Real (float64) or complex (complex128), of shape (size, size).
Matrix = NDArray[Any]

#: Each order of `pade` with the 1-norm up to which its backward error is below 2^-53 (Higham 2005).
PADE_THETAS = {
    3: 1.495585217958292e-2,
    5: 2.539398330063230e-1,
    7: 9.504178996162932e-1,
    9: 2.097847961257068e0,
    13: 5.371920351148152e0,
}

#: The same for the degrees of `taylor` (Bader, Blanes and Casas 2019).
TAYLOR_THETAS = {
    2: 2.580956802971767e-8,
    4: 3.397168839976962e-4,
    8: 4.991228871115323e-2,
    12: 2.996158913811580e-1,
    18: 1.090863719290036e0,
}

#: The condition number of the eigenvectors from which on `eigen` refuses: its error is about that times 2^-53.
MAX_CONDITION = 1e6


def pade(matrix: ArrayLike) -> Matrix:
    """The exponential by scaling and squaring with Padé approximants (Higham 2005, algorithm 2.3).

    Args:
        matrix: square, real or complex; isn't changed.

    Returns:
        A new array, real if the matrix is.

    Raises:
        ValueError: the matrix isn't square, is empty, or has an entry that isn't finite.

    Example:
        >>> pade([[0.0, 1.0], [0.0, 0.0]]).tolist()
        [[1.0, 1.0], [0.0, 1.0]]
    """
    return _scale_and_square(_checked(matrix), PADE_THETAS, _pade_approximant)


def taylor(matrix: ArrayLike) -> Matrix:
    """The exponential by scaling and squaring with Taylor polynomials (Bader, Blanes and Casas 2019).

    Degrees 2, 4, 8, 12 and 18 take 1, 2, 3, 4 and 5 products.  Paterson and Stockmeyer's scheme gets to degree 9 only
    with four products and to 12 with five; the gain comes from powers that are products of two polynomials.

    Args:
        matrix: square, real or complex; isn't changed.

    Returns:
        A new array, real if the matrix is.

    Raises:
        ValueError: the matrix isn't square, is empty, or has an entry that isn't finite.

    Example:
        >>> bool(abs(taylor([[1.0]]) - math.e) < 1e-14)
        True
    """
    return _scale_and_square(_checked(matrix), TAYLOR_THETAS, _taylor_polynomial)


def eigen(matrix: ArrayLike) -> Matrix:
    """The exponential by diagonalisation: with unitary eigenvectors for what is Hermitian, or i times Hermitian.

    Args:
        matrix: square, real or complex; isn't changed.

    Returns:
        A new array, real if the matrix is.

    Raises:
        ValueError: the matrix isn't square, is empty, or has an entry that isn't finite.
        numpy.linalg.LinAlgError: it has no full set of eigenvectors, or so ill-conditioned a one (beyond
            `MAX_CONDITION`) that the result would have fewer than ten digits.

    Example:
        >>> eigen([[0.0, 0.0], [0.0, 0.0]]).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    a = _checked(matrix)
    adjoint = a.conj().T
    # What differs by rounding only counts as Hermitian: eigh reads one triangle, which changes no more than rounding.
    tolerance = len(a) * np.finfo(np.float64).eps * _norm(a)
    if _norm(a - adjoint) <= tolerance:
        values, vectors = np.linalg.eigh(a)
        result = (vectors * np.exp(values)) @ vectors.conj().T
    elif _norm(a + adjoint) <= tolerance:
        values, vectors = np.linalg.eigh(1j * a)
        result = (vectors * np.exp(-1j * values)) @ vectors.conj().T
    else:
        values, vectors = np.linalg.eig(a)
        try:
            inverse = np.linalg.inv(vectors)
            condition = _norm(vectors) * _norm(inverse)
        except np.linalg.LinAlgError:
            condition = math.inf
        if not condition <= MAX_CONDITION:
            raise np.linalg.LinAlgError(
                f"the eigenvectors have the condition number {condition:.1g}, beyond {MAX_CONDITION:.0e}: the matrix "
                "is defective or nearly so; use pade() or taylor()"
            )
        result = (vectors * np.exp(values)) @ inverse
    return result if np.iscomplexobj(a) else np.ascontiguousarray(result.real)


def random_exponent(size: int, time: float = 1.0, seed: int = 1) -> Matrix:
    """-i H t for a random Hermitian H, of the Gaussian unitary ensemble.

    Args:
        size: rows and columns.
        time: how long the state evolves; energies are scaled to lie between about -2 and 2 (Wigner's semicircle).
        seed: for the random numbers.

    Returns:
        A complex matrix, anti-Hermitian.

    Raises:
        ValueError: the size is below 1.
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    rng = np.random.default_rng(seed)
    gaussian = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
    return np.asarray(-1j * time * (gaussian + gaussian.conj().T) / (2.0 * math.sqrt(size)))


def chain_exponent(sites: int, time: float = 1.0, field: float = 1.0) -> Matrix:
    """-i H t for the Ising chain in a transverse field; arguments as for `ising_chain`, and the evolution time.

    Returns:
        A complex matrix of 2^sites rows, anti-Hermitian.

    Raises:
        ValueError: there are fewer than 3 sites, or more than 12.
    """
    return np.asarray(-1j * time * ising_chain(sites, field))


def ising_chain(sites: int, field: float = 1.0) -> NDArray[np.float64]:
    """The Hamiltonian H = -sum Z_j Z_j+1 - field sum X_j on a ring, as a dense matrix.

    Args:
        sites: spins on the ring, 3 to 12.
        field: strength of the transverse field, in units of the coupling; at 1 the infinite chain is critical.

    Returns:
        A real symmetric matrix of 2^sites rows; bit j of a row's number is spin j.

    Raises:
        ValueError: there are fewer than 3 sites (two would share two bonds), or more than 12 (a matrix of 128 MiB).
    """
    if not 3 <= sites <= 12:
        raise ValueError(f"sites must be 3 to 12, not {sites}")
    states = np.arange(2**sites)
    spins = 1 - 2 * ((states[:, None] >> np.arange(sites)) & 1)
    hamiltonian = np.diag(-(spins * np.roll(spins, 1, axis=1)).sum(axis=1).astype(np.float64))
    for site in range(sites):
        hamiltonian[states, states ^ (1 << site)] = -field
    return hamiltonian


def _checked(matrix: ArrayLike) -> Matrix:
    a = np.asarray(matrix)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.size:
        raise ValueError(f"expected a square matrix of at least one row, not one of shape {a.shape}")
    a = a.astype(np.complex128 if np.iscomplexobj(a) else np.float64, copy=False)
    if not np.isfinite(a).all():
        raise ValueError("the matrix has an entry that is not finite")
    return a


def _norm(a: Matrix) -> float:
    """The 1-norm: the largest column sum of absolute values."""
    return float(np.abs(a).sum(axis=0).max())


def _scale_and_square(a: Matrix, thetas: dict[int, float], approximant: Callable[[Matrix, int], Matrix]) -> Matrix:
    """The lowest order that the norm allows; beyond the highest order's, that one of a / 2^s, squared s times."""
    norm = _norm(a)
    for order, theta in thetas.items():
        if norm <= theta:
            return approximant(a, order)
    highest, theta = max(thetas.items())
    squarings = math.ceil(math.log2(norm / theta))
    result = approximant(a * 2.0**-squarings, highest)
    for _ in range(squarings):
        result = result @ result
    return result


def _combined(coefficients: NDArray[np.float64], powers: list[Matrix]) -> Matrix:
    """Sums of coefficients times powers, one sum for each row of coefficients.

    As one matrix product: it goes over the powers once, where c0 * I + c1 * A + ... makes a temporary for each term.
    """
    stacked = np.stack(powers)
    flat = coefficients.astype(stacked.dtype) @ stacked.reshape(len(powers), -1)
    return np.asarray(flat.reshape(len(coefficients), *stacked.shape[1:]))


def _pade_coefficients(order: int) -> list[float]:
    """Those of the numerator, from the constant one on; the denominator's have alternating signs (Higham 2005, 2.2)."""
    f = math.factorial
    return [float(f(2 * order - j) // (f(order - j) * f(j))) for j in range(order + 1)]


def _pade_approximant(a: Matrix, order: int) -> Matrix:
    """The quotient (V - U)^-1 (V + U), with U the odd and V the even part of the numerator."""
    b = _pade_coefficients(order)
    identity = np.eye(len(a), dtype=a.dtype)
    a2 = a @ a
    if order == 13:
        a4 = a2 @ a2
        a6 = a4 @ a2
        # Rows: high and low part of U / A, then of V.  The high ones are multiplied by A^6.
        rows = np.array(
            [
                [0.0, b[9], b[11], b[13]],
                [b[1], b[3], b[5], b[7]],
                [0.0, b[8], b[10], b[12]],
                [b[0], b[2], b[4], b[6]],
            ]
        )
        odd_high, odd_low, even_high, even_low = _combined(rows, [identity, a2, a4, a6])
        u, v = a @ (a6 @ odd_high + odd_low), a6 @ even_high + even_low
    else:
        powers = [identity, a2]
        while 2 * len(powers) < order:
            powers.append(powers[-1] @ a2)
        odd, v = _combined(np.array([b[1::2], b[0::2]]), powers)
        u = a @ odd
    return np.asarray(np.linalg.solve(v - u, v + u))


def _taylor_polynomial(a: Matrix, degree: int) -> Matrix:
    """The sum of a^k / k! up to the degree, in as few products as its formula allows."""
    identity = np.eye(len(a), dtype=a.dtype)
    a2 = a @ a
    if degree == 2:
        return identity + a + a2 / 2.0
    if degree == 4:
        return identity + a + a2 @ (identity / 2.0 + a / 6.0 + a2 / 24.0)
    if degree == 8:
        a4 = a2 @ (_T8_FOURTH[0] * a + _T8_FOURTH[1] * a2)
        left, right, rest = _combined(_T8, [identity, a, a2, a4])
        return np.asarray(left @ right + rest)
    a3 = a @ a2
    if degree == 12:
        q1, q2, q3, q4 = _combined(_T12, [identity, a, a2, a3])
        sixth = q3 + q4 @ q4
        return np.asarray(q1 + (q2 + sixth) @ sixth)
    b1, b2, b3, b4, b5 = _combined(_T18, [identity, a, a2, a3, a3 @ a3])
    ninth = b1 @ b5 + b4
    return np.asarray(b2 + (b3 + ninth) @ ninth)


# The coefficients of Bader, Blanes and Casas (2019): they solve the equations that make all powers of the result those
# of the exponential's series, which the tests check.
_ROOT = math.sqrt(177.0)

#: Of degree 8: A4 = A2 (x1 A + x2 A2), then (x3 A2 + A4)(x4 + x5 A + x6 A2 + x7 A4) + 1 + A + y2 A2, with x3 = 2/3.
_T8_FOURTH = ((1.0 + _ROOT) / 132.0, (1.0 + _ROOT) / 528.0)
_T8 = np.array(
    [
        [0.0, 0.0, 2.0 / 3.0, 1.0],
        [
            (29.0 * _ROOT - 271.0) / 210.0,
            11.0 * (_ROOT - 1.0) / 840.0,
            11.0 * (_ROOT - 9.0) / 3360.0,
            (89.0 - _ROOT) / 2240.0,
        ],
        [1.0, 1.0, (857.0 - 58.0 * _ROOT) / 630.0, 0.0],
    ]
)

#: Of 1, A, A^2, A^3, for each factor and summand of degree 12.
_T12 = np.array(
    [
        [-0.0186023205146205532, -0.00500702322573317731, -0.573420122960522264, -0.133399693943892060],
        [4.6, 0.992875103538486836, -0.132445561052799639, 0.0017299],
        [0.211693118299809443, 0.158224384715726725, 0.165635169436727415, 0.0107862779315792425],
        [0.0, -0.131810610138301840, -0.0202785554058925908, -0.00675951846863086360],
    ]
)

#: Of 1, A, A^2, A^3, A^6, for each factor and summand of degree 18.
_T18 = np.array(
    [
        [0.0, -0.100365581030144620, -0.00802924648241156961, -0.000892138498045729956, 0.0],
        [0.0, 0.397849749499645076, 1.36783778460411720, 0.498289622525382678, -0.000637898194594723309],
        [
            -10.9676396052962063,
            1.68015813878906197,
            0.0571779846478865513,
            -0.00698210122488052084,
            3.34975017086070538e-5,
        ],
        [
            -0.0904316832390810562,
            -0.0676404519071381908,
            0.0675961301770459646,
            0.0295552570429315527,
            -1.39180257516060701e-5,
        ],
        [0.0, 0.0, -0.0923364619367118593, -0.0169364939002081717, -1.40086798182036160e-5],
    ]
)


def main() -> None:
    """How far each is off for a chain of 6 sites: from a unitary matrix, and from `eigen`."""
    print("   time    1-norm  method   not unitary  off eigen")
    for time in (0.01, 1.0, 100.0, 10_000.0):
        exponent = chain_exponent(6, time)
        reference = eigen(exponent)
        for method in (pade, taylor, eigen):
            evolution = method(exponent)
            unitarity = _norm(evolution @ evolution.conj().T - np.eye(len(evolution)))
            off = _norm(evolution - reference)
            print(f"{time:7g} {_norm(exponent):9.3g}  {method.__name__:7s} {unitarity:12.1e} {off:10.1e}")


if __name__ == "__main__":
    main()
