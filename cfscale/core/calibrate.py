"""Calibration: the founding coefficients, shrunk towards what was measured.

Bayesian linear regression with a Gaussian prior at the founding coefficients: with little data, or with data in which
agents and tasks never move apart, the founding figures stay; with much they go. The noise is estimated from the data
(empirical Bayes), so the intervals are as good as the model: a straight line, and observations that are independent.
Samples of one hour are not, and their intervals are too narrow.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import fsum, isclose, sqrt
from statistics import NormalDist

from msgspec import Struct

from cfscale.core.coefficients import (
    AGENT_CPU,
    AGENT_MEMORY,
    BASE_CPU,
    BASE_MEMORY,
    COEFFICIENTS_SCHEMA,
    TASK_CPU,
    TASK_MEMORY,
    UNITS,
    Coefficient,
    Coefficients,
)
from cfscale.core.rules import cpu_curve
from cfscale.core.tier import Catalogue
from cfscale.core.units import GIB
from cfscale.errors import UnavailableError

_DECIMALS = 9  # of a GiB: a byte
_ROUNDS = 50  # the estimate of the noise settles within a few
_LEAST_NOISE = 1e-6  # of the measured amounts: data without any noise would divide by zero


class Observation(Struct, frozen=True):
    """What a deployment used at one moment, and what it carried then.

    ``base`` is False where only what agents and tasks use was measured, without what runs when there are none.
    """

    agents: int
    tasks: int
    memory_bytes: int
    cpu_millicores: int
    base: bool = True


class _Prior(Struct, frozen=True):
    """What is believed of the coefficients of one resource before any data."""

    names: tuple[str, str, str]
    means: tuple[float, float, float]
    deviations: tuple[float, float, float]


def calibrated(
    observations: Sequence[Observation], catalogue: Catalogue, agent_class: str, source: str
) -> Coefficients:
    """The coefficients that these observations make of the founding ones.

    Raises UnavailableError where they are too few, or where they say that an agent takes no memory.
    """
    leaf = catalogue.rules.leaf
    least, confidence = leaf("sizing.calibration.least_observations"), leaf("sizing.calibration.confidence").ratio
    if len(observations) < int(least.exact):
        raise UnavailableError(
            f"{source}: {len(observations)} observations, fewer than {least.value}: sample for longer before you trust a fit"
        )
    memory = [item.memory_bytes / GIB for item in observations]
    cpu = [item.cpu_millicores / 1000 for item in observations]
    found = (
        *_fit(_memory_prior(catalogue, agent_class), observations, memory, confidence),
        *_fit(_cpu_prior(catalogue, observations), observations, cpu, confidence),
    )
    if next(item.posterior for item in found if item.name == AGENT_MEMORY) <= 0:
        raise UnavailableError(f"{source}: an agent would take no memory: sample over loads that differ in agents")
    return Coefficients(COEFFICIENTS_SCHEMA, source, len(observations), confidence, found)


def _memory_prior(catalogue: Catalogue, agent_class: str) -> _Prior:
    rules = catalogue.rules
    paths = (BASE_MEMORY, rules.agent_memory(agent_class), TASK_MEMORY)
    base, agent, task = (float(rules.leaf(path).bytes / GIB) for path in paths)
    spread = rules.leaf("sizing.calibration.prior_spread").ratio
    return _Prior(
        (BASE_MEMORY, AGENT_MEMORY, TASK_MEMORY), (base, agent, task), (base * spread, agent * spread, task * spread)
    )


def _cpu_prior(catalogue: Catalogue, observations: Sequence[Observation]) -> _Prior:
    """The line through the tier tops at the mean load; a task is believed to take nothing, as uncertain as an agent."""
    mean = Fraction(sum(item.agents for item in observations), len(observations))
    pieces = list(pairwise(cpu_curve(catalogue)))
    (x0, y0), (x1, y1) = next((piece for piece in pieces if mean <= piece[1][0]), pieces[-1])
    agent = float(Fraction(y1 - y0, (x1 - x0) * 1000))
    base = float(catalogue.rules.leaf(BASE_CPU).exact)
    spread = catalogue.rules.leaf("sizing.calibration.prior_spread").ratio
    return _Prior((BASE_CPU, AGENT_CPU, TASK_CPU), (base, agent, 0.0), (base * spread, agent * spread, agent * spread))


def _fit(
    prior: _Prior, observations: Sequence[Observation], amounts: Sequence[float], confidence: float
) -> tuple[Coefficient, ...]:
    """The posterior of one resource; a coefficient that would be negative is held at zero and the others fitted again."""
    rows = [(int(item.base), item.agents, item.tasks) for item in observations]
    kept = [0, 1, 2]
    while True:
        means, deviations = _posterior(prior, rows, amounts, kept)
        lowest = min(kept, key=lambda index: means[index], default=None)
        if lowest is None or means[lowest] >= 0:
            break
        kept.remove(lowest)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    return tuple(
        Coefficient(
            name=name,
            unit=UNITS[name],
            prior=round(prior.means[index], _DECIMALS),
            prior_deviation=round(prior.deviations[index], _DECIMALS),
            posterior=round(means[index], _DECIMALS),
            low=round(max(0.0, means[index] - z * deviations[index]), _DECIMALS),
            high=round(means[index] + z * deviations[index], _DECIMALS),
            data_ratio=round(max(0.0, 1 - (deviations[index] / prior.deviations[index]) ** 2), 4),
        )
        for index, name in enumerate(prior.names)
    )


def _posterior(
    prior: _Prior, rows: Sequence[tuple[int, int, int]], amounts: Sequence[float], kept: Sequence[int]
) -> tuple[list[float], list[float]]:
    """(means, standard deviations); what is not kept is zero, exactly.

    Data go in as sums alone, so a round costs nothing however many observations there are. The noise begins at next to
    nothing, where the data have all the say, and grows to what they leave unexplained.
    """
    sums = _sums(rows, amounts, kept)
    floor = max(_LEAST_NOISE**2 * sums.total / len(rows), _LEAST_NOISE**3)
    noise, found, covariance = floor, [0.0] * len(kept), list[list[float]]()
    weights = [Fraction(prior.deviations[index]) ** -2 for index in kept]
    for _ in range(_ROUNDS):
        exact = Fraction(noise)
        precision = [
            [cell / exact + (weights[i] if i == j else 0) for j, cell in enumerate(row)]
            for i, row in enumerate(sums.squares)
        ]
        covariance = _inverse(precision)
        pull = [
            float(Fraction(product) / exact + Fraction(prior.means[index]) * weight)
            for index, product, weight in zip(kept, sums.products, weights, strict=True)
        ]
        found = [sum(cell * value for cell, value in zip(line, pull, strict=True)) for line in covariance]
        before, noise = noise, max(floor, sums.residual(found) / max(1, len(rows) - len(kept)))
        if isclose(before, noise, rel_tol=1e-12):
            break
    means, deviations = [0.0] * len(prior.names), [0.0] * len(prior.names)
    for place, index in enumerate(kept):
        means[index], deviations[index] = found[place], sqrt(max(0.0, covariance[place][place]))
    return means, deviations


class _Sums(Struct, frozen=True):
    """What regression needs of the data: X'X (whole numbers), X'y and y'y."""

    squares: list[list[Fraction]]
    products: list[float]
    total: float

    def residual(self, found: Sequence[float]) -> float:
        """The sum of squared residuals of these coefficients."""
        size = range(len(found))
        explained = sum(2 * found[i] * self.products[i] for i in size)
        return max(
            0.0,
            self.total - explained + sum(found[i] * float(self.squares[i][j]) * found[j] for i in size for j in size),
        )


def _sums(rows: Sequence[tuple[int, int, int]], amounts: Sequence[float], kept: Sequence[int]) -> _Sums:
    return _Sums(
        [[Fraction(sum(row[i] * row[j] for row in rows)) for j in kept] for i in kept],
        [fsum(row[i] * amount for row, amount in zip(rows, amounts, strict=True)) for i in kept],
        fsum(amount * amount for amount in amounts),
    )


def _inverse(matrix: list[list[Fraction]]) -> list[list[float]]:
    """The inverse of a positive definite matrix of at most three rows, exactly (Gauss-Jordan)."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = rows[i][i]
        rows[i] = [cell / pivot for cell in rows[i]]
        for j in range(size):
            if j != i:
                factor = rows[j][i]
                rows[j] = [cell - factor * other for cell, other in zip(rows[j], rows[i], strict=True)]
    return [[float(cell) for cell in row[size:]] for row in rows]
