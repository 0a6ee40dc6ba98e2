from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from training.penalties import finite_difference, squared_gradient_norms, wasserstein_gp, zero_centred

SHAPE = (1, 6, 6)


def images(n: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def discriminator(activation: Callable[[], nn.Module] = lambda: nn.LeakyReLU(0.2), seed: int = 0) -> nn.Sequential:
    """Returns a convolution followed by two linear layers, which treats each image independently."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            activation(),
            nn.Flatten(),
            nn.Linear(36, 8),
            activation(),
            nn.Linear(8, 1),
            nn.Flatten(0),
        )


def exact(network: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return squared_gradient_norms(network(x), x)


def penalty_and_gradient(
    network: nn.Module, x: Tensor, dtype: torch.dtype | None = None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns the zero-centred penalty with gamma 2, and its gradient with respect to all weights as one vector."""
    device = next(network.parameters()).device
    x = x.to(device).requires_grad_()
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        logits = network(x)
    penalty = zero_centred(squared_gradient_norms(logits, x, scale), gamma=2)
    gradients = torch.autograd.grad(scale * penalty, list(network.parameters()), materialize_grads=True)
    return penalty.detach().cpu(), parameters_to_vector(gradients).cpu() / scale


@pytest.mark.parametrize("logit_shape", [(3,), (3, 1)])
def test_the_gradient_norm_of_a_linear_discriminator_is_that_of_its_weights(logit_shape):
    weight, x = images(1, seed=1), images(3).requires_grad_()
    logits = ((x * weight).flatten(1).sum(1) + 5).reshape(logit_shape)
    torch.testing.assert_close(squared_gradient_norms(logits, x), weight.square().sum().expand(3))


def test_the_gradient_of_a_quadratic_discriminator_is_linear():
    matrix, x = images(1, (36, 36), seed=1)[0], images(3).requires_grad_()
    flat = x.flatten(1)
    logits = (flat @ matrix * flat).sum(1) / 2
    expected = (flat @ (matrix + matrix.T) / 2).square().sum(1)
    torch.testing.assert_close(squared_gradient_norms(logits, x), expected)


def test_one_pass_over_reals_and_fakes_gives_the_norms_of_both():
    network, real, fake = discriminator(), images(5), images(5, seed=1)
    both = torch.cat((real, fake))
    torch.testing.assert_close(exact(network, both), torch.cat((exact(network, real), exact(network, fake))))


def test_the_zero_centred_penalty_is_half_gamma_times_the_mean_square():
    assert zero_centred(torch.tensor([1.0, 3.0]), gamma=10.0).item() == 10


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_the_wasserstein_penalty_is_the_squared_distance_of_the_norm_from_1(norm):
    assert wasserstein_gp(torch.full((4,), norm**2), gamma=10).item() == pytest.approx(10 * (norm - 1) ** 2)


def test_the_wasserstein_penalty_has_a_finite_gradient_where_the_discriminator_is_constant():
    network = discriminator()
    nn.init.zeros_(network[-2].weight)
    gradients = torch.autograd.grad(
        wasserstein_gp(exact(network, images(4))), list(network.parameters()), materialize_grads=True
    )
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("penalty", [lambda norms: zero_centred(norms, gamma=2), wasserstein_gp])
def test_the_gradient_of_a_penalty_agrees_with_finite_differences(penalty):
    """Compares with central differences in float64. Measured error: 2e-7 of the largest component."""
    network, x = discriminator(nn.SiLU), images(8)
    gradient = parameters_to_vector(
        torch.autograd.grad(penalty(exact(network, x)), list(network.parameters()), materialize_grads=True)
    )
    network.double()
    x = x.double().requires_grad_()
    weights = parameters_to_vector(network.parameters()).detach()

    def at(weights: Tensor) -> Tensor:
        vector_to_parameters(weights, network.parameters())
        return penalty(torch.autograd.grad(network(x).sum(), x)[0].square().flatten(1).sum(1))

    step = 1e-6
    expected = torch.stack(
        [at(weights + move) - at(weights - move) for move in step * torch.eye(len(weights)).double()]
    )
    torch.testing.assert_close(gradient.double(), expected / (2 * step), rtol=0, atol=1e-5 * gradient.abs().max())


@pytest.mark.parametrize(
    ("dtype", "scale", "penalty_bound", "gradient_bound"),
    [(torch.bfloat16, 1.0, 0.02, 0.05), (torch.float16, 2.0**16, 0.01, 0.02)],
)
def test_penalties_in_mixed_precision_are_close_to_fp32(dtype, scale, penalty_bound, gradient_bound):
    """Bounds relative errors. Largest on a CPU: penalty 1.1 % in bf16, 0.14 % in fp16; gradient 2.5 and 0.53 %."""
    for seed in range(5):
        network, x = discriminator(seed=seed), images(32)
        penalty, gradient = penalty_and_gradient(network, x)
        low_penalty, low_gradient = penalty_and_gradient(network, x, dtype, scale)
        assert low_penalty.dtype == low_gradient.dtype == torch.float32
        assert abs(low_penalty - penalty) < penalty_bound * penalty
        assert (low_gradient - gradient).norm() < gradient_bound * gradient.norm()


def test_fp16_loses_small_gradients_unless_they_are_scaled():
    network, x = discriminator(), images(128)
    with torch.no_grad():
        network[-2].weight.mul_(3e-5)
    penalty, gradient = penalty_and_gradient(network, x)
    scaled_penalty, scaled_gradient = penalty_and_gradient(network, x, torch.float16, 2.0**16)
    unscaled_penalty, unscaled_gradient = penalty_and_gradient(network, x, torch.float16)
    assert abs(scaled_penalty - penalty) < 0.01 * penalty
    assert (scaled_gradient - gradient).norm() < 0.02 * gradient.norm()
    assert abs(unscaled_penalty - penalty) > 0.5 * penalty
    assert (unscaled_gradient - gradient).norm() > 0.5 * gradient.norm()


def test_the_loss_scale_may_be_a_tensor():
    network, x = discriminator(), images(4).requires_grad_()
    logits = network(x)
    torch.testing.assert_close(
        squared_gradient_norms(logits, x, torch.tensor(1024.0)), squared_gradient_norms(logits, x)
    )


def test_the_finite_difference_converges_to_the_exact_norm():
    """The bound of 2 % is four standard errors: with 100,000 draws one is sqrt(2 / 100,000), or 0.45 %."""
    network, sigma = discriminator(nn.SiLU), 0.05
    x = images(1)
    with torch.no_grad():
        noise = torch.randn(100_000, *SHAPE, generator=torch.Generator().manual_seed(0))
        estimate = finite_difference(network(x), network(x + sigma * noise), sigma).mean()
    torch.testing.assert_close(estimate, exact(network, x)[0].detach(), rtol=0.02, atol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.4])
def test_the_bias_of_the_finite_difference_is_quadratic_in_sigma(sigma):
    """For D(x) = |x|^2 / 2 in d dimensions the exact value is |x|^2 and the bias is sigma^2 (d^2 + 2 d) / 4."""
    d = 8
    x, noise = images(1, (d,)).double(), torch.randn(200_000, d, generator=torch.Generator().manual_seed(0)).double()
    # Adding the opposite of each draw cancels the odd orders, which have mean 0 but a large variance.
    noisy = x + sigma * torch.cat((noise, -noise))
    estimate = finite_difference(x.square().sum(1) / 2, noisy.square().sum(1) / 2, sigma).mean().item()
    assert estimate == pytest.approx(x.square().sum().item() + sigma**2 * (d**2 + 2 * d) / 4, rel=0.02)
