import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from training.losses import discriminator_loss, minimax, non_saturating

logits = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20).map(torch.tensor)


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
    (vanished,) = torch.autograd.grad(minimax(sure), sure)
    (strong,) = torch.autograd.grad(non_saturating(sure), sure)
    assert abs(vanished.item()) < 1e-8
    assert abs(strong.item() + 1) < 1e-6


def test_losses_are_fp32_whatever_the_precision_of_the_logits():
    half = torch.tensor([3.0, -40.0], dtype=torch.bfloat16)
    for loss in (discriminator_loss(half, half), minimax(half), non_saturating(half)):
        assert loss.dtype == torch.float32
