"""Weights of the tutorial networks, trained with plain PyTorch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from tests.own import tutorial_networks


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """Returns the digits of scikit-learn as float32 (1797, 1, 28, 28) in [0, 1], and their labels."""
    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    return functional.interpolate(images, 28, mode="bilinear"), torch.from_numpy(data.target)


@pytest.fixture(scope="session")
def trained(digits, tmp_path_factory) -> Callable[..., tuple[Path, nn.Module]]:
    """Returns a function that trains a generator of `tutorial_networks` as a tutorial would, and saves its weights."""
    folder = tmp_path_factory.mktemp("weights")

    def train(name: str, latent_shape: tuple[int, ...], steps: int = 20, **arguments) -> tuple[Path, nn.Module]:
        torch.manual_seed(0)
        generator = getattr(tutorial_networks, name)(**arguments)
        conditional = name == "Conditional"
        discriminator = nn.Sequential(nn.Linear(784 + 10 * conditional, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
        optimizers = [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in (generator, discriminator)]
        images = digits[0] if name == "Sigmoid" else digits[0] * 2 - 1

        def logit(image: Tensor, label: Tensor) -> Tensor:
            hot = (functional.one_hot(label, 10).float(),) if conditional else ()
            return discriminator(torch.cat((image.flatten(1), *hot), 1))

        for _ in range(steps):
            chosen = torch.randint(len(images), (64,))
            label = digits[1][chosen]
            fake = generator(torch.randn(64, *latent_shape), *((label,) if conditional else ()))
            losses = (
                functional.softplus(-logit(fake, label)).mean(),
                functional.softplus(-logit(images[chosen], label)).mean()
                + functional.softplus(logit(fake.detach(), label)).mean(),
            )
            for optimizer, loss in zip(optimizers, losses, strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        path = folder / f"{name}-{steps}.pth"
        torch.save(generator.state_dict(), path)
        return path, generator.eval()

    return train
