"""VoxMol (denoising of molecules on density grids) in plain eager PyTorch.

An independent implementation from a written specification, used as the peer that the Rust program is timed against and
compared with. It computes the way the reference does: standard modules, group norm, SiLU and dropout one after the other,
one attention head. Parameter names are the reference's names.

Letters: B samples, C elements, G side of the grid, c channels, N voxels of a level.
"""

from dataclasses import dataclass, fields
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the published one, "111M"."""

    elements: int = 8
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2, 4)  # of each level, relative to the level above
    attention: tuple[bool, ...] = (False, False, True, True)
    blocks: int = 2  # of a level on the way down; one more on the way up
    groups: int = 16
    dropout: float = 0.1
    grid: int = 64  # side of the grids that the network is trained on; it takes any that the levels can halve

    def __post_init__(self):
        if not self.multipliers or len(self.multipliers) != len(self.attention):
            raise ValueError(f"one attention flag for every multiplier: {self.multipliers}, {self.attention}")

    @classmethod
    def from_json(cls, values: dict) -> "Config":
        """Raises ValueError for keys that are no field; absent keys keep their default."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown configuration keys {unknown}; known: {sorted(known)}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    @property
    def widths(self) -> list[int]:
        """Channels above the first level, then of every level."""
        widths = [self.width]
        for multiplier in self.multipliers:
            widths.append(widths[-1] * multiplier)
        return widths


SIZES = {"111M": Config(), "28M": Config(width=16), "7M": Config(width=8, groups=8)}


# --- building blocks -------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """[B, c_in, ...] -> [B, c_out, ...]: norm, SiLU, convolution, twice, and a shortcut around both."""

    def __init__(self, in_width: int, out_width: int, config: Config):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(config.groups, in_width), nn.GroupNorm(config.groups, out_width)
        self.conv1, self.conv2 = convolution(in_width, out_width), convolution(out_width, out_width)
        self.dropout = nn.Dropout(config.dropout)
        self.shortcut = nn.Identity() if in_width == out_width else nn.Conv3d(in_width, out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + self.shortcut(x)


class Attention(nn.Module):
    """One head among the voxels of a grid, without positions. The norm is there, as in the reference, and never applied."""

    def __init__(self, width: int, config: Config):
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, width)
        self.projection, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT  # [B, N, c]
        query, key, value = self.projection(tokens).unsqueeze(1).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(query, key, value).squeeze(1)
        return x + self.output(mixed).mT.view_as(x)


class Block(nn.Module):
    def __init__(self, in_width: int, out_width: int, attention: bool, config: Config):
        super().__init__()
        self.res = Residual(in_width, out_width, config)
        self.attn = Attention(out_width, config) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.res(x)
        return self.attn(x) if self.attn else x


class Down(nn.Module):
    """Halves the side: output j sees inputs 2j - 1, 2j, 2j + 1."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv3d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Up(nn.Module):
    """Doubles the side."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.ConvTranspose3d(width, width, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Middle(nn.Module):
    def __init__(self, width: int, config: Config):
        super().__init__()
        self.res1, self.res2 = Residual(width, width, config), Residual(width, width, config)
        self.attn = Attention(width, config)

    def forward(self, x: Tensor) -> Tensor:
        return self.res2(self.attn(self.res1(x)))


def convolution(in_width: int, out_width: int) -> nn.Conv3d:
    return nn.Conv3d(in_width, out_width, 3, padding=1)


# --- the whole network -----------------------------------------------------------------------------------------------


def encoder(config: Config) -> nn.ModuleList:
    modules = []
    for level, (above, width) in enumerate(pairwise(config.widths)):
        in_widths = [above] + [width] * (config.blocks - 1)
        modules += [Block(in_width, width, config.attention[level], config) for in_width in in_widths]
        modules += [Down(width)] if level + 1 < len(config.multipliers) else []
    return nn.ModuleList(modules)


def decoder(config: Config) -> nn.ModuleList:
    """The last block of a level has the width of the level above already."""
    modules = []
    for level, (above, width) in reversed(list(enumerate(pairwise(config.widths)))):
        attention = config.attention[level]
        modules += [Block(2 * width, width, attention, config) for _ in range(config.blocks)]
        modules += [Block(width + above, above, attention, config)]
        modules += [Up(above)] if level > 0 else []
    return nn.ModuleList(modules)


class VoxMol(nn.Module):
    """Noisy grids [B, C, G, G, G] -> clean ones, freshly initialised as torch's modules are."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.grid_projection = convolution(config.elements, config.width)
        self.down, self.up = encoder(config), decoder(config)
        self.middle = Middle(config.widths[-1], config)
        self.norm = nn.GroupNorm(config.groups, config.width)
        self.final = convolution(config.width, config.elements)

    def encode(self, noisy: Tensor) -> list[Tensor]:
        """What every stage on the way down gives; the last one is the lowest."""
        states = [self.grid_projection(noisy)]
        for stage in self.down:
            states.append(stage(states[-1]))
        return states

    def forward(self, noisy: Tensor) -> Tensor:
        skipped = self.encode(noisy)
        x = self.middle(skipped[-1])
        for stage in self.up:
            x = stage(torch.cat([x, skipped.pop()], 1) if isinstance(stage, Block) else x)
        return self.final(F.silu(self.norm(x)))


# --- loss and training -----------------------------------------------------------------------------------------------


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Summed over samples, channels and voxels."""
    return F.mse_loss(prediction, target, reduction="sum")


class ForeachAdamW:
    """AdamW without epsilon: where the second moment is 0 nothing moves. Parameters without gradient do not decay."""

    def __init__(self, parameters: list[Tensor], rate: float, betas: tuple[float, float], weight_decay: float):
        self.parameters, self.rate, self.betas, self.weight_decay = parameters, rate, betas, weight_decay
        self.steps = 0
        self.moments: dict[Tensor, tuple[Tensor, Tensor]] = {}

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        parameters = [p for p in self.parameters if p.grad is not None]
        gradients = [p.grad for p in parameters]
        for parameter in parameters:
            self.moments.setdefault(parameter, (torch.zeros_like(parameter), torch.zeros_like(parameter)))
        first, second = zip(*(self.moments[p] for p in parameters))
        first_beta, second_beta = self.betas
        torch._foreach_mul_(parameters, 1 - self.rate * self.weight_decay)
        torch._foreach_lerp_(first, gradients, 1 - first_beta)
        torch._foreach_mul_(second, second_beta)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - second_beta)
        denominators = torch._foreach_sqrt(second)
        for denominator in denominators:
            denominator.masked_fill_(denominator == 0, torch.inf)
        bias = (1 - second_beta**self.steps) ** 0.5 / (1 - first_beta**self.steps)
        torch._foreach_addcdiv_(parameters, first, denominators, -self.rate * bias)


def fused_adamw(parameters: list[Tensor], rate: float, betas: tuple[float, float], weight_decay: float) -> torch.optim.AdamW:
    """torch's fused AdamW with the least epsilon that there is, which moves nothing where all gradients were 0.

    It is the same as no epsilon but where a second moment underflows to 0 and its first moment does not.
    """
    limits = torch.finfo(parameters[0].dtype)
    least = limits.tiny * limits.eps
    return torch.optim.AdamW(parameters, lr=rate, betas=betas, eps=least, weight_decay=weight_decay, fused=True)


OPTIMISERS = {"fused": fused_adamw, "foreach": ForeachAdamW}


class Trainer:
    """The recipe of the public configuration: constant rate, no clipping, moving average of the weights."""

    def __init__(self, model: VoxMol, optimiser="foreach", rate=2e-5, betas=(0.99, 0.999), weight_decay=1e-2, ema_decay=0.999):
        self.parameters, self.ema_decay = list(model.parameters()), ema_decay
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimiser = OPTIMISERS[optimiser](self.parameters, rate, betas, weight_decay)

    def update(self, loss: Tensor) -> None:
        """Backward, AdamW, moving average."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1 - self.ema_decay)
