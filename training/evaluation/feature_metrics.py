"""Metrics on classifier features: Frechet distance (FID), kernel distance (KID), precision, recall, density, coverage.

All functions take two sets of features, float64 (n, d) and (m, d). Their results depend on the sample sizes, so compare
only values that were measured with equal n and m, and read them next to the value of real images against real images.
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
"""k: a ball around a point reaches to its k-th nearest neighbour in the same set."""
_ROWS_PER_BLOCK = 1_000
"""Rows of a distance matrix that are in memory at a time."""


def frechet_distance(a: Features, b: Features) -> tuple[float, float]:
    """Returns the Frechet distance between normal distributions that are fitted to two sets of features, and its
    standard error.

    |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), with means mu and covariances S: equation 6 of Heusel et al.
    (2017), "GANs trained by a two time-scale update rule converge to a local Nash equilibrium". Their FID uses the
    features of an Inception network. The value is 0 if means and covariances are equal. It is biased: for two samples
    of one distribution its expectation is above 0 and falls with the sample sizes.

    The standard error is by how much the value varies with the choice of the points in b, for fixed points in a. It is
    the linear approximation: the standard deviation of a point's influence on the value, over the square root of m. The
    influence of a point b + y, with y relative to the mean, is 2 (mu_b - mu_a).y + y.(I - T)y, where
    T = S_a^(1/2) (S_a^(1/2) S_b S_a^(1/2))^(-1/2) S_a^(1/2) is the linear map that optimally transports the normal
    distribution of b to that of a (Knott and Smith, 1984, "On the optimal mapping of distributions").

    Args:
        a: float64 (n, d), with n and d at least 2.
        b: float64 (m, d), with m at least 2.

    Raises:
        ValueError: the numbers of features differ.
        numpy.linalg.LinAlgError: a set has one feature only, or values that are not finite.
    """
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # S_a S_b is not symmetric, but has the eigenvalues of S_a^(1/2) S_b S_a^(1/2), which are real and not negative.
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    squares, vectors = np.linalg.eigh(root @ covariance_b @ root)
    roots = np.sqrt(squares.clip(0))
    shift = b.mean(0) - a.mean(0)
    distance = np.square(shift).sum() + np.trace(covariance_a) + np.trace(covariance_b) - 2 * roots.sum()

    # A direction without variance, such as that of a constant feature, has no influence through T.
    varies = squares > squares.max() * np.finfo(float).eps * len(squares)
    half = root @ vectors[:, varies] / np.sqrt(roots[varies])
    deviations = b - b.mean(0)
    influences = 2 * deviations @ shift + np.square(deviations).sum(1) - np.square(deviations @ half).sum(1)
    return float(distance), float(influences.std() / np.sqrt(len(b)))


def kernel_distance(a: Features, b: Features) -> tuple[float, float]:
    """Returns the squared maximum mean discrepancy for the kernel k(x, y) = (x.y / d + 1)^3, and its standard error.

    The kernel inception distance of Binkowski et al. (2018), "Demystifying MMD GANs", section 4: the mean of the
    unbiased estimate over 100 random subsets of at most 1,000 points, drawn with a fixed seed. For two samples of one
    distribution the expectation is 0 at every sample size; single values can be slightly negative.

    Args:
        a: float64 (n, d).
        b: float64 (m, d), with n and m at least 4, so that a subset has two points.

    Returns:
        the distance, and its standard error: the deviation between subsets, divided by the square root of the number of
        disjoint subsets that fit into the smaller set. Subsets that overlap add little information.

    Raises:
        ValueError: the numbers of features differ.
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
    """Unbiased estimate of the squared maximum mean discrepancy between (n, d) and (m, d), in O((n + m)^2)."""
    within_a, within_b, between = ((x @ y.T / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    return (
        (within_a.sum() - np.trace(within_a)) / (n * (n - 1))
        + (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
        - 2 * between.mean()
    )


@dataclass(frozen=True)
class Manifold:
    """Overlap of real and generated features. Higher is better for each value.

    The manifold of a set is the union of balls around its points; each ball reaches to the 5th nearest neighbour of its
    center within the set.
    """

    precision: float
    """Share of generated images that lie on the manifold of the real ones, 0 to 1: quality."""
    recall: float
    """Share of real images that lie on the manifold of the generated ones, 0 to 1: diversity."""
    density: float
    """Mean number of balls of real images that contain a generated image, divided by 5. At least 0, and above 1 where
    generated images concentrate among dense real ones. Less sensitive to outliers among real images than precision."""
    coverage: float
    """Share of real images whose ball contains a generated image, 0 to 1: diversity. Outliers among generated images
    increase recall, but not coverage."""


def manifold(real: Features, generated: Features) -> Manifold:
    """Measures precision, recall, density and coverage of generated features.

    Precision and recall: Kynkaanniemi et al. (2019), "Improved precision and recall metric for assessing generative
    models", with k = 5 instead of 3. Density and coverage: Naeem et al. (2020), "Reliable fidelity and diversity
    metrics for generative models".

    Args:
        real: float64 (n, d), with n at least 6.
        generated: float64 (m, d), with m at least 6. m = n makes precision and recall comparable.

    Raises:
        RuntimeError: a set has fewer than 6 points, or the numbers of features differ.
    """
    reals, fakes = torch.from_numpy(real), torch.from_numpy(generated)
    real_radii, fake_radii = _radii(reals), _radii(fakes)
    in_real_balls, on_real = 0, 0
    covered, recalled = (torch.zeros(len(reals), dtype=torch.bool) for _ in range(2))
    for rows, radii in zip(fakes.split(_ROWS_PER_BLOCK), fake_radii.split(_ROWS_PER_BLOCK), strict=True):
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
    """Returns the distance of each point to its 5th nearest neighbour other than itself: (n, d) -> (n,)."""
    return torch.cat(
        [torch.cdist(rows, points).kthvalue(NEIGHBOURS + 1, 1)[0] for rows in points.split(_ROWS_PER_BLOCK)]
    )
