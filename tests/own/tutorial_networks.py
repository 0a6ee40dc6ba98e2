"""Generators as tutorials define them. They know nothing about this package."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dcgan(nn.Module):
    """Takes latents (n, nz, 1, 1), returns (n, 1, 28, 28) in [-1, 1]."""

    def __init__(self, nz: int = 100, ngf: int = 64):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf * 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 3, 2, 1, bias=False),
            nn.BatchNorm2d(ngf * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


class Mlp(nn.Module):
    """Layers with a `model.` prefix and batch normalization; returns (n, 1, 28, 28) in [-1, 1]."""

    def __init__(self, latent_dim: int, sizes: tuple[int, ...] = (64, 128)):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((latent_dim, *sizes), sizes, strict=False):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after, 0.8), nn.LeakyReLU(0.2, inplace=True)]
        self.model = nn.Sequential(*layers, nn.Linear(sizes[-1], 784), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        image = self.model(z)
        return image.view(image.size(0), 1, 28, 28)


class Flat(nn.Module):
    """Returns flat vectors (n, 784) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(32, 128)
        self.output = nn.Linear(128, 784)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.output(functional.gelu(self.hidden(z))))


class Sigmoid(Flat):
    """Returns flat vectors (n, 784) in [0, 1]."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.output(functional.elu(self.hidden(z))))


class Conditional(nn.Module):
    """Takes latents and labels; an embedding of the label is appended to the latent."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.label_embedding = nn.Embedding(classes, classes)
        self.model = nn.Sequential(nn.Linear(32 + classes, 128), nn.SiLU(), nn.Linear(128, 784), nn.Tanh())

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        return self.model(torch.cat((self.label_embedding(labels), noise), -1)).view(-1, 1, 28, 28)


class Modern(nn.Module):
    """A learned constant, pixel, instance, layer and group norm, attention, bilinear and subpixel upsampling."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, channels, 7, 7))
        self.mapping = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.SiLU())
        self.style = nn.Linear(32, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(4, channels)
        self.second = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.activation = nn.PReLU()
        self.output = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        z = z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-6)
        scale, shift = self.style(self.mapping(z)).chunk(2, 1)
        x = self.constant.expand(z.shape[0], -1, -1, -1)
        x = functional.instance_norm(self.first(x)) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
        attended = functional.scaled_dot_product_attention(tokens, tokens, tokens)
        x = x + attended.squeeze(1).transpose(1, 2).unflatten(2, (7, 7))
        x = functional.pixel_shuffle(self.second(functional.silu(self.norm(x))), 2)
        x = functional.interpolate(self.activation(x), scale_factor=2, mode="bilinear", align_corners=False)
        return torch.tanh(self.output(functional.softplus(x)))
