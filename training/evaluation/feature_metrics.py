"""How close two sets of images are, as seen in a classifier's features: distances, and what covers what.

Each takes features, float (n, d) and (m, d), and is biased by the sample sizes: compare metrics of equal n only, and
beside them that of real images against real ones.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Features = NDArray[np.float64]

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1_000
NEIGHBOURS = 5
_ROWS = 1_000
"""Of a matrix of distances that are held at once."""


def frechet_distance(a: Features, b: Features) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): 0 where means and covariances agree.

    Heusel et al. (2017), "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", equation
    6. For samples of one distribution it is above 0 by about O(d / n).
    """
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr (S_a S_b)^(1/2) through a symmetric matrix of the same eigenvalues, all of them real and at least 0.
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(0)).sum()
    shift = np.square(a.mean(0) - b.mean(0)).sum()
    return float(shift + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross)


def kernel_distance(a: Features, b: Features) -> tuple[float, float]:
    """The squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, and its standard error. Unbiased: 0 is
    expected of one distribution, and small negative values occur.

    Binkowski et al. (2018), "Demystifying MMD GANs", section 4: the mean over random subsets, drawn from a fixed seed.
    The error is that of as many subsets as fit beside each other, since those that overlap tell little more.
    """
    n = min(len(a), len(b))
    size = min(KID_SUBSET_SIZE, n // 2)
    random = np.random.default_rng(0)
    estimates = [
        _squared_discrepancy(a[random.permutation(len(a))[:size]], b[random.permutation(len(b))[:size]])
        for _ in range(KID_SUBSETS)
    ]
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) / np.sqrt(n / size))


def _squared_discrepancy(a: Features, b: Features) -> float:
    within_a, within_b, between = ((x @ y.T / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    return (
        (within_a.sum() - np.trace(within_a)) / (n * (n - 1))
        + (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
        - 2 * between.mean()
    )


@dataclass(frozen=True)
class Manifold:
    """What of one set lies among the other; each from 0 to 1, but density, which may be more.

    A set's manifold is the union of the balls around its points that reach to their 5th neighbour.
    """

    precision: float
    """The share of generated images that lie on the manifold of the real ones: are they good?"""
    recall: float
    """The share of real images that lie on the manifold of the generated ones: is nothing missing?"""
    density: float
    """In how many balls of real images a generated one lies, over 5: precision that outliers do not fool."""
    coverage: float
    """The share of real images whose ball holds a generated one: recall that outliers do not fool."""


def manifold(real: Features, generated: Features) -> Manifold:
    """Precision and recall: Kynkaanniemi et al. (2019), "Improved precision and recall metric for assessing generative
    models". Density and coverage: Naeem et al. (2020), "Reliable fidelity and diversity metrics for generative models".
    """
    reals, fakes = torch.from_numpy(real), torch.from_numpy(generated)
    real_radii, fake_radii = _radii(reals), _radii(fakes)
    in_real_balls, on_real, covered = 0, 0, torch.zeros(len(reals), dtype=torch.bool)
    recalled = torch.zeros(len(reals), dtype=torch.bool)
    for rows, radii in zip(fakes.split(_ROWS), fake_radii.split(_ROWS), strict=True):
        distances = torch.cdist(rows, reals)
        inside = distances <= real_radii
        in_real_balls += int(inside.sum())
        on_real += int(inside.any(1).sum())
        covered |= inside.any(0)
        recalled |= (distances <= radii[:, None]).any(0)
    return Manifold(
        precision=on_real / len(fakes),
        recall=recalled.double().mean().item(),
        density=in_real_balls / (NEIGHBOURS * len(fakes)),
        coverage=covered.double().mean().item(),
    )


def _radii(points: Tensor) -> Tensor:
    """The distance of each point to its 5th neighbour, itself not counted."""
    return torch.cat([torch.cdist(rows, points).kthvalue(NEIGHBOURS + 1, 1)[0] for rows in points.split(_ROWS)])
