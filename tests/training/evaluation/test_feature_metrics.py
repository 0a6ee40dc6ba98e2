"""Metrics on features, compared with closed forms, brute force and torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torchmetrics.image.kid import poly_mmd

from training.evaluation.feature_metrics import NEIGHBOURS, Manifold, frechet_distance, kernel_distance, manifold

Points = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)


def gaussian(n: int, d: int = 5, seed: int = 0) -> Points:
    """Points of a normal distribution with correlated coordinates and a mean other than 0, (n, d)."""
    random = np.random.default_rng(seed)
    return random.standard_normal((n, d)) @ random.standard_normal((d, d)) + random.standard_normal(d)


def halves(n: int, seed: int = 0) -> tuple[Points, Points]:
    """Two sets of n points from one distribution."""
    both = gaussian(2 * n, seed=seed)
    return both[:n], both[n:]


def brute_force_manifold(real: Points, generated: Points) -> Manifold:
    """Evaluates the formulas of the papers on the whole matrix of distances."""

    def distances(a: Points, b: Points) -> Points:
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    def radii(points: Points) -> Points:
        return np.sort(distances(points, points), axis=1)[:, NEIGHBOURS]

    between = distances(real, generated)
    in_real_ball, in_generated_ball = between <= radii(real)[:, None], between <= radii(generated)[None]
    return Manifold(
        precision=in_real_ball.any(0).mean(),
        recall=in_generated_ball.any(1).mean(),
        density=in_real_ball.sum() / (NEIGHBOURS * len(generated)),
        coverage=in_real_ball.any(1).mean(),
    )


@given(seeds, st.integers(1, 8).filter(lambda d: d > 1), st.integers(20, 60), st.integers(20, 60))
@settings(max_examples=30, deadline=None)
def test_the_frechet_distance_equals_the_closed_form(seed, d, n, m):
    a, b = gaussian(n, d, seed), gaussian(m, d, seed + 1)
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert frechet_distance(a, b)[0] == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(seeds, st.lists(st.floats(-100, 100), min_size=5, max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_shift_gives_its_squared_length_as_frechet_distance(seed, shift):
    a = gaussian(50, seed=seed)
    assert frechet_distance(a, a + np.array(shift))[0] == pytest.approx(np.square(shift).sum(), rel=1e-9, abs=1e-6)


def test_the_frechet_distance_of_a_set_to_itself_is_0():
    a = gaussian(300, d=64)
    assert frechet_distance(a, a)[0] == pytest.approx(0, abs=1e-7 * np.trace(np.cov(a, rowvar=False)))


def test_the_frechet_distance_is_symmetric():
    a, b = gaussian(50, seed=1), gaussian(70, seed=2)
    assert frechet_distance(a, b)[0] == pytest.approx(frechet_distance(b, a)[0], rel=1e-9)


def test_constant_features_do_not_change_the_frechet_distance():
    a, b = gaussian(50, seed=1), gaussian(50, seed=2)
    constant = np.zeros((50, 3))
    with_constant = frechet_distance(np.hstack((a, constant)), np.hstack((b, constant)))
    assert with_constant == pytest.approx(frechet_distance(a, b))


def test_the_frechet_distance_within_a_distribution_falls_with_the_number_of_samples():
    few, many = (frechet_distance(*halves(n))[0] for n in (200, 20_000))
    assert 0 < many < few / 20


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_the_standard_error_of_the_frechet_distance_is_its_spread_over_samples(shift):
    """The spread over 200 samples has an error of 5 % itself."""
    a = gaussian(2_000)
    samples = gaussian(200 * 1_000) * 0.8 + shift
    distances, errors = np.transpose([frechet_distance(a, b) for b in samples.reshape(200, 1_000, -1)])
    assert errors.mean() == pytest.approx(distances.std(), rel=0.2)


def test_the_kernel_distance_agrees_with_torchmetrics():
    """torchmetrics uses all points and we use random halves: they agree within four standard errors of about 15 %."""
    a, b = gaussian(400, seed=1), gaussian(400, seed=2)
    theirs = poly_mmd(torch.from_numpy(a), torch.from_numpy(b)).item()
    distance, error = kernel_distance(a, b)
    assert distance == pytest.approx(theirs, abs=4 * error)
    assert 0 < error < 0.2 * theirs


def test_the_kernel_distance_of_two_repeated_points_equals_torchmetrics():
    a, b = (np.repeat(gaussian(1, seed=seed), 20, 0) for seed in (1, 2))
    distance, error = kernel_distance(a, b)
    assert distance == pytest.approx(poly_mmd(torch.from_numpy(a), torch.from_numpy(b)).item())
    assert error == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_unbiased():
    """The mean over thirty pairs of sets from one distribution is 0 within four standard errors."""
    distances = [kernel_distance(*halves(60, seed))[0] for seed in range(30)]
    scales = [np.trace(np.cov(gaussian(200, seed=seed), rowvar=False)) ** 3 for seed in range(30)]
    distances = np.array(distances) / scales
    assert abs(distances.mean()) < 4 * distances.std(ddof=1) / np.sqrt(30)
    assert distances.min() < 0


def test_the_kernel_distance_is_the_same_each_time():
    assert kernel_distance(*halves(100)) == kernel_distance(*halves(100))


@given(seeds, st.integers(10, 60), st.integers(10, 60), st.floats(0, 4))
@settings(max_examples=50, deadline=None)
def test_the_manifold_equals_the_formulas(seed, n, m, shift):
    real, generated = gaussian(n, 3, seed), gaussian(m, 3, seed + 1) + shift
    assert vars(manifold(real, generated)) == pytest.approx(vars(brute_force_manifold(real, generated)))


def test_the_manifold_of_several_blocks_equals_the_formulas():
    real, generated = gaussian(1_200, 3, seed=1), gaussian(1_100, 3, seed=1)[::-1] * 1.1
    assert vars(manifold(real, generated)) == pytest.approx(vars(brute_force_manifold(real, generated)))


def test_a_set_covers_itself():
    points = gaussian(100)
    found = manifold(points, points.copy())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    # Each point also lies in its own ball, and on the surface of others, where rounding decides.
    assert found.density == pytest.approx((NEIGHBOURS + 1) / NEIGHBOURS, abs=0.05)


def test_distant_sets_do_not_overlap():
    points = gaussian(100)
    assert manifold(points, points + 1_000) == Manifold(precision=0, recall=0, density=0, coverage=0)


def test_one_repeated_real_image_has_full_precision_and_no_recall():
    points = gaussian(100)
    found = manifold(points, np.repeat(points[:1], 100, 0))
    assert found.precision == 1
    assert found.recall <= 0.01
    assert found.coverage < 0.5
