import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from models.common.errors import InputError
from models.onnx_file.latents import INDEX_LIMIT, LATENTS_VERSION, draw_latents

seeds = st.integers(0, INDEX_LIMIT - 1)
firsts = st.integers(0, INDEX_LIMIT - 1_000)
dims = st.integers(1, 130)


@given(seeds, firsts, st.integers(0, 60), st.integers(1, 40), dims)
def test_an_image_has_the_same_latent_and_label_in_every_range(seed, first, skip, n, dim):
    whole, whole_labels = draw_latents(seed, first, skip + n, dim, (3, 1, 2))
    part, part_labels = draw_latents(seed, first + skip, n, dim, (3, 1, 2))
    np.testing.assert_array_equal(part, whole[skip:])
    np.testing.assert_array_equal(part_labels, whole_labels[skip:])


@given(seeds, firsts, dims)
def test_latents_do_not_depend_on_the_classes(seed, first, dim):
    np.testing.assert_array_equal(draw_latents(seed, first, 5, dim)[0], draw_latents(seed, first, 5, dim, (1, 1))[0])


def test_latents_of_version_1_are_the_stored_ones():
    drawn, labels = draw_latents(seed=7, first=3, n=2, latent_dim=5, class_counts=[10] * 10)
    expected = [
        [1.3231066, -0.17979056, 0.77561015, -0.23886056, 0.7571575],
        [0.9858188, -0.5783386, 0.11295898, -1.5324318, 0.15696678],
    ]
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    assert labels.tolist() == [4, 2]
    assert LATENTS_VERSION == 1


def test_latents_are_standard_normal_and_independent():
    drawn, _ = draw_latents(seed=0, first=0, n=20_000, latent_dim=7)
    assert drawn.dtype == np.float32
    assert scipy.stats.kstest(drawn.ravel(), "norm").pvalue > 0.01
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(7), atol=0.03)


def test_labels_follow_the_class_counts():
    counts = np.array([1, 0, 5, 4])
    _, labels = draw_latents(seed=0, first=0, n=10_000, latent_dim=4, class_counts=counts)
    drawn = np.bincount(labels, minlength=4)
    assert drawn[1] == 0
    assert scipy.stats.chisquare(drawn[[0, 2, 3]], 1_000 * counts[[0, 2, 3]]).pvalue > 0.01


def test_different_seeds_give_different_latents():
    assert not np.array_equal(draw_latents(1, 0, 1, 8)[0], draw_latents(2, 0, 1, 8)[0])


@pytest.mark.parametrize(
    ("field", "seed", "first", "n"),
    [
        ("seed", -1, 0, 1),
        ("seed", INDEX_LIMIT, 0, 1),
        ("n", 0, 0, 0),
        ("first", 0, -1, 1),
        ("first", 0, INDEX_LIMIT, 1),
        ("first", 0, INDEX_LIMIT - 1, 2),
    ],
)
def test_an_argument_out_of_range_is_rejected_by_name(field, seed, first, n):
    with pytest.raises(InputError) as caught:
        draw_latents(seed, first, n, 8)
    assert caught.value.field == field


def test_the_last_image_of_the_last_seed_can_be_drawn():
    assert draw_latents(INDEX_LIMIT - 1, INDEX_LIMIT - 1, 1, 8)[0].shape == (1, 8)
