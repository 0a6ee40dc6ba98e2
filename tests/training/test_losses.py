import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from training.losses import LOSSES, discriminator_loss, minimax, non_saturating

logits = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20).map(torch.tensor)
pairs = st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 2), min_size=1, max_size=20).map(
    lambda rows: torch.tensor(rows).unbind(1)
)


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs, materialize_grads=True)


def relativistic(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the losses of the discriminator and of the generator."""
    return LOSSES["relativistic"].discriminator(real, fake), LOSSES["relativistic"].generator(fake, real)


@given(logits, logits)
def test_the_discriminator_loss_is_binary_cross_entropy_with_logits(real, fake):
    expected = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
    torch.testing.assert_close(discriminator_loss(real, fake), expected)


@given(logits)
def test_generator_losses_equal_the_formulas_of_the_paper(fake):
    probability = fake.double().sigmoid().clamp(1e-30, 1 - 1e-16)
    torch.testing.assert_close(non_saturating(fake).double(), -probability.log().mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(minimax(fake), -bce(fake, torch.zeros_like(fake)))


def test_a_guessing_discriminator_has_a_loss_of_log_4():
    """Theorem 1 of Goodfellow et al. (2014): the optimum of the game has the value -log 4."""
    zeros = torch.zeros(5)
    torch.testing.assert_close(discriminator_loss(zeros, zeros), torch.tensor(4.0).log())


def test_only_the_minimax_gradient_vanishes_where_the_discriminator_recognizes_fakes():
    sure = torch.tensor([-20.0], requires_grad=True)
    (vanished,) = gradients(minimax(sure), sure)
    (strong,) = gradients(non_saturating(sure), sure)
    assert abs(vanished.item()) < 1e-8
    assert abs(strong.item() + 1) < 1e-6


def test_the_hinge_loss_is_the_mean_distance_to_the_margin():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    torch.testing.assert_close(LOSSES["hinge"].discriminator(real, fake), torch.tensor((0 + 0.5 + 2) / 3 + (0 + 1) / 2))
    torch.testing.assert_close(LOSSES["hinge"].generator(fake, None), torch.tensor(1.5))


def test_the_hinge_loss_has_no_gradient_beyond_the_margin():
    real = torch.tensor([1.5, 0.5], requires_grad=True)
    fake = torch.tensor([-1.5, -0.5], requires_grad=True)
    real_gradient, fake_gradient = gradients(LOSSES["hinge"].discriminator(real, fake), real, fake)
    assert real_gradient.tolist() == [0, -0.5]
    assert fake_gradient.tolist() == [0, 0.5]


@given(logits, logits)
def test_the_wasserstein_losses_are_means_of_logits(real, fake):
    distance = real.double().mean() - fake.double().mean()
    torch.testing.assert_close(LOSSES["wasserstein"].discriminator(real, fake).double(), -distance, rtol=0, atol=1e-4)
    torch.testing.assert_close(LOSSES["wasserstein"].generator(fake, None), -fake.mean())


@given(pairs)
def test_relativistic_losses_equal_the_formulas_of_the_paper(pair):
    real, fake = pair
    difference = real.double() - fake.double()
    discriminator = (1 + (-difference).exp()).log().mean()
    generator = (1 + difference.exp()).log().mean()
    expected = torch.stack((discriminator, generator)).float()
    torch.testing.assert_close(torch.stack(relativistic(real, fake)), expected, rtol=1e-4, atol=1e-6)


@given(pairs, st.floats(-50, 50, width=32))
def test_relativistic_losses_ignore_a_constant_added_to_all_logits(pair, shift):
    real, fake = pair
    torch.testing.assert_close(relativistic(real + shift, fake + shift), relativistic(real, fake), rtol=0, atol=1e-4)


@given(pairs)
def test_relativistic_gradients_of_a_pair_are_opposite_and_equal(pair):
    real, fake = (each.requires_grad_() for each in pair)
    real_gradient, fake_gradient = gradients(LOSSES["relativistic"].discriminator(real, fake), real, fake)
    assert (real_gradient <= 0).all()
    torch.testing.assert_close(real_gradient, -fake_gradient)


def test_relativistic_losses_are_log_2_for_equal_logits():
    logits = torch.tensor([3.0, -7.0])
    assert relativistic(logits, logits) == pytest.approx((math.log(2), math.log(2)))


@pytest.mark.parametrize("real", [None, torch.zeros(4, 1), torch.zeros(3)])
def test_a_relativistic_loss_needs_one_real_for_each_fake(real):
    """The shapes (4,) and (4, 1) would broadcast to 16 pairs."""
    with pytest.raises(ValueError, match=r"None|\[3\]|\[4, 1\]"):
        LOSSES["relativistic"].generator(torch.zeros(4), real)


@pytest.mark.parametrize("name", LOSSES)
def test_only_relativistic_generator_losses_depend_on_the_real_logits(name):
    fake, real = torch.randn(5), torch.randn(5, requires_grad=True)
    loss = LOSSES[name].generator(fake.requires_grad_(), real)
    (real_gradient,) = gradients(loss, real)
    assert bool(real_gradient.any()) == LOSSES[name].relativistic
    if not LOSSES[name].relativistic:
        assert torch.equal(loss, LOSSES[name].generator(fake, None))


@pytest.mark.parametrize("name", LOSSES)
def test_the_discriminator_raises_reals_and_lowers_fakes_and_the_generator_raises_fakes(name):
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    real_gradient, fake_gradient = gradients(LOSSES[name].discriminator(real, fake), real, fake)
    assert (real_gradient < 0).all()
    assert (fake_gradient > 0).all()
    (fake_gradient,) = gradients(LOSSES[name].generator(fake, real), fake)
    assert (fake_gradient < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_computed_in_fp32_for_logits_of_lower_precision(name, dtype):
    real, fake = torch.tensor([3.0, -60_000.0], dtype=dtype), torch.tensor([-40.0, 60_000.0], dtype=dtype)
    for loss in (LOSSES[name].discriminator, LOSSES[name].generator):
        half = loss(real, fake)
        assert half.dtype == torch.float32
        assert half.isfinite()
        assert torch.equal(half, loss(real.float(), fake.float()))
