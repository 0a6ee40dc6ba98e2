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
    """The losses of both networks."""
    return LOSSES["relativistic"].discriminator(real, fake), LOSSES["relativistic"].generator(fake, real)


@given(logits, logits)
def test_the_discriminator_loss_is_binary_cross_entropy_with_logits(real, fake):
    expected = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
    torch.testing.assert_close(discriminator_loss(real, fake), expected)


@given(logits)
def test_the_generator_losses_are_those_of_the_paper(fake):
    probability = fake.double().sigmoid().clamp(1e-30, 1 - 1e-16)
    torch.testing.assert_close(non_saturating(fake).double(), -probability.log().mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(minimax(fake), -bce(fake, torch.zeros_like(fake)))


def test_at_chance_the_value_is_minus_log_4():
    """The global minimum of the training criterion: theorem 1 of Goodfellow et al. (2014)."""
    zeros = torch.zeros(5)
    torch.testing.assert_close(-discriminator_loss(zeros, zeros), -torch.tensor(4.0).log())


def test_where_the_discriminator_is_sure_only_the_minimax_gradient_vanishes():
    sure = torch.tensor([-20.0], requires_grad=True)
    (vanished,) = gradients(minimax(sure), sure)
    (strong,) = gradients(non_saturating(sure), sure)
    assert abs(vanished.item()) < 1e-8
    assert abs(strong.item() + 1) < 1e-6


def test_the_hinge_counts_what_falls_short_of_the_margin():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    torch.testing.assert_close(LOSSES["hinge"].discriminator(real, fake), torch.tensor((0 + 0.5 + 2) / 3 + (0 + 1) / 2))
    torch.testing.assert_close(LOSSES["hinge"].generator(fake, None), torch.tensor(1.5))


def test_the_gradient_of_the_hinge_is_zero_beyond_the_margin():
    real = torch.tensor([1.5, 0.5], requires_grad=True)
    fake = torch.tensor([-1.5, -0.5], requires_grad=True)
    of_real, of_fake = gradients(LOSSES["hinge"].discriminator(real, fake), real, fake)
    assert of_real.tolist() == [0, -0.5]
    assert of_fake.tolist() == [0, 0.5]


@given(logits, logits)
def test_the_wasserstein_losses_are_means_of_logits(real, fake):
    distance = real.double().mean() - fake.double().mean()
    torch.testing.assert_close(LOSSES["wasserstein"].discriminator(real, fake).double(), -distance, rtol=0, atol=1e-4)
    torch.testing.assert_close(LOSSES["wasserstein"].generator(fake, None), -fake.mean())


@given(pairs)
def test_the_relativistic_losses_are_those_of_the_paper(pair):
    real, fake = pair
    difference = real.double() - fake.double()
    discriminator = (1 + (-difference).exp()).log().mean()
    generator = (1 + difference.exp()).log().mean()
    expected = torch.stack((discriminator, generator)).float()
    torch.testing.assert_close(torch.stack(relativistic(real, fake)), expected, rtol=1e-4, atol=1e-6)


@given(pairs, st.floats(-50, 50, width=32))
def test_relativistic_losses_do_not_see_a_shift_of_all_logits(pair, shift):
    real, fake = pair
    torch.testing.assert_close(relativistic(real + shift, fake + shift), relativistic(real, fake), rtol=0, atol=1e-4)


@given(pairs)
def test_relativistic_gradients_push_the_two_of_a_pair_apart_by_as_much(pair):
    real, fake = (each.requires_grad_() for each in pair)
    of_real, of_fake = gradients(LOSSES["relativistic"].discriminator(real, fake), real, fake)
    assert (of_real <= 0).all()
    torch.testing.assert_close(of_real, -of_fake)


def test_a_relativistic_tie_costs_log_2_on_both_sides():
    tie = torch.tensor([3.0, -7.0])
    assert relativistic(tie, tie) == pytest.approx((math.log(2), math.log(2)))


@pytest.mark.parametrize("real", [None, torch.zeros(4, 1), torch.zeros(3)])
def test_a_relativistic_loss_wants_a_real_for_every_fake(real):
    """Shapes (4,) and (4, 1) would broadcast to 16 pairs."""
    with pytest.raises(ValueError, match=r"None|\[3\]|\[4, 1\]"):
        LOSSES["relativistic"].generator(torch.zeros(4), real)


@pytest.mark.parametrize("name", LOSSES)
def test_only_a_relativistic_generator_depends_on_the_real_logits(name):
    fake, real = torch.randn(5), torch.randn(5, requires_grad=True)
    loss = LOSSES[name].generator(fake.requires_grad_(), real)
    (of_real,) = gradients(loss, real)
    assert bool(of_real.any()) == LOSSES[name].relativistic
    if not LOSSES[name].relativistic:
        assert torch.equal(loss, LOSSES[name].generator(fake, None))


@pytest.mark.parametrize("name", LOSSES)
def test_a_discriminator_descends_by_raising_reals_and_lowering_fakes_and_a_generator_by_raising_fakes(name):
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    of_real, of_fake = gradients(LOSSES[name].discriminator(real, fake), real, fake)
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    (of_fake,) = gradients(LOSSES[name].generator(fake, real), fake)
    assert (of_fake < 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_fp32_whatever_the_precision_of_the_logits(name, dtype):
    real, fake = torch.tensor([3.0, -60_000.0], dtype=dtype), torch.tensor([-40.0, 60_000.0], dtype=dtype)
    for loss in (LOSSES[name].discriminator, LOSSES[name].generator):
        half = loss(real, fake)
        assert half.dtype == torch.float32
        assert half.isfinite()
        assert torch.equal(half, loss(real.float(), fake.float()))
