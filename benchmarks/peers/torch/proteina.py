"""Proteina (C-alpha flow matching) in plain eager PyTorch.

An independent implementation from a written specification, used as the peer that the Rust program is timed against and
compared with. By default it computes the way the reference does: time conditioning at every residue and at every pair,
one-hot features times a weight matrix. `savings=True` leaves out what is computed more than once, the same function of
real numbers with less arithmetic. Parameter names are the reference's names. Coordinates are in nm.

Letters: b proteins, n padded residues, r registers, N = n + r tokens, d token width, c conditioning width, p pair width,
h heads, q triangle width, F features.
"""

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHAIN_BREAK_FIRST = ("index", "chain_break", "self_conditioning")
CHAIN_BREAK_LAST = ("index", "self_conditioning", "chain_break")
AUX_FROM_T = 0.3


@dataclass(frozen=True)
class Config:
    """Sizes of the network; the defaults are the "60M" network without pair updates."""

    token_width: int = 512
    layers: int = 10
    heads: int = 8
    conditioning_width: int = 512
    pair_width: int = 256
    triangle_width: int = 196
    time_width: int = 256
    index_width: int = 128
    fold_width: int = 256  # of each of the three fold tables
    position_bins: int = 64
    self_conditioning_bins: int = 128
    sequence_separation_bins: int = 127
    registers: int = 10
    distogram_bins: int = 64
    update_every: int | None = None  # None or 0: the pair representation is never updated
    position_range_nm: tuple[float, float] = (0.1, 3.0)
    self_conditioning_range_nm: tuple[float, float] = (0.1, 3.0)
    distogram_max_nm: float = 1.0
    token_features: tuple[str, ...] = CHAIN_BREAK_FIRST  # the order of their columns in the weights

    @classmethod
    def from_json(cls, values: dict) -> "Config":
        """Raises ValueError for keys that are no field; absent keys keep their default."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown configuration keys {unknown}; known: {sorted(known)}")
        return cls(**values)

    @property
    def update_layers(self) -> list[int]:
        """The trunk layers after which the pair representation is updated."""
        return list(range(0, self.layers - 1, self.update_every)) if self.update_every else []


_LARGE = dict(pair_width=512, token_features=CHAIN_BREAK_LAST)
SIZES = {
    "60M_notri": Config(),
    "60M_tri": Config(update_every=2),
    "200M_notri": Config(768, 15, 12, **_LARGE),
    "200M_tri": Config(768, 15, 12, **_LARGE, update_every=3),
    "400M_tri": Config(1024, 18, 16, **_LARGE, update_every=5),
}


class Batch(NamedTuple):
    """Proteins as the network sees them; padded positions come last."""

    x_t: Tensor  # [b, n, 3] centred, nm
    t: Tensor  # [b] flow time: 0 is noise, 1 is data
    residue_pdb_idx: Tensor  # [b, n] int, author residue numbers
    chain_breaks_per_residue: Tensor  # [b, n], 1 where the next residue is not bonded
    mask: Tensor  # [b, n], 0 or False in padded positions


class Prediction(NamedTuple):
    velocity: Tensor  # [b, n, 3] nm, zero in padded positions
    pair_logits: Tensor | None  # [b, n, n, distogram classes]; None without pair updates


# --- features: nothing learnt ----------------------------------------------------------------------------------------


def time_embedding(t: Tensor, width: int) -> Tensor:
    """[b] -> [b, width], sines first. In f64, because phases reach 2000."""
    half = width // 2
    step = torch.arange(half, dtype=torch.float64, device=t.device)
    phase = 2000 * t.double()[:, None] * torch.exp(-step * math.log(2000) / (half - 1))
    return F.pad(torch.cat([phase.sin(), phase.cos()], -1), (0, width % 2))


def index_embedding(residue_pdb_idx: Tensor, width: int) -> Tensor:
    """[b, n] -> [b, n, width] in f64. The first residue of each protein counts as 1; padding holds anything."""
    index = (residue_pdb_idx - residue_pdb_idx[:, :1] + 1).double()
    order = torch.arange(width // 2, dtype=torch.float64, device=index.device)
    angle = index[..., None] * math.pi / 2056 ** (2 * order / width)
    return torch.cat([angle.sin(), angle.cos()], -1)


def separation_bins(residue_pdb_idx: Tensor, bins: int) -> Tensor:
    """Class of (row - column) in author numbers, [b, n] -> [b, n, n]; the middle class is 0."""
    separation = (residue_pdb_idx[:, :, None] - residue_pdb_idx[:, None, :]).double()
    limit = bins / 2 - 1
    edges = torch.linspace(-limit, limit, bins - 1, dtype=torch.float64, device=separation.device)
    return torch.bucketize(separation, edges)


def distance_bins(x: Tensor, bins: int, low: float, high: float) -> Tensor:
    """Class of each pair distance, [b, n, 3] -> [b, n, n]; a distance on an edge belongs to the lower class."""
    distance = (x[:, :, None] - x[:, None, :]).norm(dim=-1)
    return torch.bucketize(distance, torch.linspace(low, high, bins - 1, dtype=x.dtype, device=x.device))


def outer(mask: Tensor) -> Tensor:
    """[b, n] -> [b, n, n]."""
    return mask[:, :, None] * mask[:, None, :]


# --- conditioning ----------------------------------------------------------------------------------------------------


class TimeEmbedding(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        return time_embedding(t, self.width).to(t.dtype)


class FoldEmbedding(nn.Module):
    """Unconditional: the null row, the last one, of the three tables."""

    def __init__(self, width: int):
        super().__init__()
        self.embedding_C, self.embedding_A, self.embedding_T = (nn.Embedding(1, width) for _ in range(3))

    def forward(self, t: Tensor) -> Tensor:
        tables = self.embedding_C, self.embedding_A, self.embedding_T
        return torch.cat([table.weight[-1] for table in tables]).expand(len(t), -1)


class ConditioningFactory(nn.Module):
    """Features of a protein, repeated over `mask` [b, ...], then mapped: [b, ..., c].

    The mask may be the residues', the pairs', or ones of shape [b, 1, ...] to compute each protein once.
    """

    def __init__(self, creators: list[nn.Module], features: int, width: int, norm: bool):
        super().__init__()
        self.feat_creators = nn.ModuleList(creators)
        self.linear_out = nn.Linear(features, width, bias=False)
        self.ln_out = nn.LayerNorm(width) if norm else None

    def forward(self, t: Tensor, mask: Tensor) -> Tensor:
        features = torch.cat([creator(t) for creator in self.feat_creators], -1)
        features = features.view(len(t), *[1] * (mask.dim() - 1), -1) * mask[..., None]
        mapped = self.linear_out(features)
        return (self.ln_out(mapped) if self.ln_out else mapped) * mask[..., None]


class Conditioning(NamedTuple):
    """Conditioning vectors and how results for them become results for what is conditioned.

    `split` None: the vectors [b, ..., c] fit as they are, position by position or by broadcasting.
    `split` (r, n): the vectors [b, 2, c] hold one row for all registers and one for all residues.
    """

    vectors: Tensor
    split: tuple[int, int] | None = None

    def spread(self, values: Tensor) -> Tensor:
        if self.split is None:
            return values
        registers, residues = self.split
        return torch.cat([values[:, :1].expand(-1, registers, -1), values[:, 1:].expand(-1, residues, -1)], 1)


class AdaptiveLayerNorm(nn.Module):
    """LN(x) * sigmoid(Lin(LN(c))) + Lin(LN(c)), masked. The factor is a plain sigmoid."""

    def __init__(self, width: int, conditioning: int):
        super().__init__()
        self.norm_cond = nn.LayerNorm(conditioning)
        self.to_gamma = nn.Sequential(nn.Linear(conditioning, width), nn.Sigmoid())
        self.to_beta = nn.Linear(conditioning, width, bias=False)

    def forward(self, x: Tensor, conditioning: Conditioning, mask: Tensor) -> Tensor:
        normed = self.norm_cond(conditioning.vectors)
        gamma, beta = conditioning.spread(self.to_gamma(normed)), conditioning.spread(self.to_beta(normed))
        return (F.layer_norm(x, x.shape[-1:]) * gamma + beta) * mask[..., None]


class OutputScale(nn.Module):
    """x * sigmoid(Lin(c)) of the raw conditioning, masked."""

    def __init__(self, width: int, conditioning: int):
        super().__init__()
        self.to_adaln_zero_gamma = nn.Sequential(nn.Linear(conditioning, width), nn.Sigmoid())

    def forward(self, x: Tensor, conditioning: Conditioning, mask: Tensor) -> Tensor:
        return x * conditioning.spread(self.to_adaln_zero_gamma(conditioning.vectors)) * mask[..., None]


# --- trunk -----------------------------------------------------------------------------------------------------------


class SwiGlu(nn.Module):
    """The second half is the gate."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, -1)
        return F.silu(gate) * value


class Transition(nn.Module):
    """d -> 2 m d, SwiGLU, m d -> d, masked; no residual and no norm."""

    def __init__(self, width: int, expansion: int):
        super().__init__()
        inner = expansion * width
        self.swish_linear = nn.Sequential(nn.Linear(width, 2 * inner, bias=False), SwiGlu())
        self.linear_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.linear_out(self.swish_linear(x)) * mask[..., None]


class PairBiasAttention(nn.Module):
    """[b, N, d] -> [b, N, d]. Queries and keys are normalised over all heads together; the output is gated."""

    def __init__(self, config: Config):
        super().__init__()
        width, self.heads = config.token_width, config.heads
        self.node_norm = nn.LayerNorm(width)
        self.to_qkv, self.to_g = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_layer_norm, self.k_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.pair_norm = nn.LayerNorm(config.pair_width)
        self.to_bias = nn.Linear(config.pair_width, config.heads, bias=False)
        self.to_out_node = nn.Linear(width, width)

    def per_head(self, x: Tensor) -> Tensor:
        """[b, N, d] -> [b, h, N, d / h]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, pair: Tensor, pair_mask: Tensor) -> Tensor:
        x = self.node_norm(x)
        query, key, value = self.to_qkv(x).chunk(3, -1)
        query, key = self.per_head(self.q_layer_norm(query)), self.per_head(self.k_layer_norm(key))
        bias = self.to_bias(self.pair_norm(pair)).permute(0, 3, 1, 2)
        logits = query @ key.mT / math.sqrt(query.shape[-1])
        logits = logits.masked_fill(pair_mask[:, None] == 0, torch.finfo(x.dtype).min) + bias
        mixed = logits.softmax(-1) @ self.per_head(value)
        return self.to_out_node(self.to_g(x).sigmoid() * mixed.transpose(1, 2).flatten(2))


class ConditionedAttention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        widths = config.token_width, config.conditioning_width
        self.adaln, self.mha, self.scale_output = AdaptiveLayerNorm(*widths), PairBiasAttention(config), OutputScale(*widths)

    def forward(self, x: Tensor, pair: Tensor, conditioning: Conditioning, mask: Tensor, pair_mask: Tensor) -> Tensor:
        x = self.mha(self.adaln(x, conditioning, mask), pair, pair_mask)
        return self.scale_output(x, conditioning, mask)


class ConditionedTransition(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        widths = config.token_width, config.conditioning_width
        self.adaln, self.scale_output = AdaptiveLayerNorm(*widths), OutputScale(*widths)
        self.transition = Transition(config.token_width, 4)

    def forward(self, x: Tensor, conditioning: Conditioning, mask: Tensor) -> Tensor:
        x = self.transition(self.adaln(x, conditioning, mask), mask)
        return self.scale_output(x, conditioning, mask)


class TrunkLayer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.mhba, self.transition = ConditionedAttention(config), ConditionedTransition(config)

    def forward(self, x: Tensor, pair: Tensor, conditioning: Conditioning, mask: Tensor, pair_mask: Tensor) -> Tensor:
        x = x * mask[..., None]
        x = (x + self.mhba(x, pair, conditioning, mask, pair_mask)) * mask[..., None]
        return (x + self.transition(x, conditioning, mask)) * mask[..., None]


# --- pair representation ---------------------------------------------------------------------------------------------


class PairFeatures(nn.Module):
    """Linear map of the one-hot features [b, n, n, F_p], then a norm, masked: [b, n, n, p]."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.classes = [config.sequence_separation_bins, config.self_conditioning_bins, config.position_bins]
        self.linear_out = nn.Linear(sum(self.classes), config.pair_width, bias=False)
        self.ln_out = nn.LayerNorm(config.pair_width)

    def bins(self, batch: Batch, x_sc: Tensor | None) -> list[Tensor | None]:
        """The class [b, n, n] of each feature; None stands for an absent feature, which is a block of zeros."""
        config = self.config
        return [
            separation_bins(batch.residue_pdb_idx, config.sequence_separation_bins),
            None if x_sc is None else distance_bins(x_sc, config.self_conditioning_bins, *config.self_conditioning_range_nm),
            distance_bins(batch.x_t, config.position_bins, *config.position_range_nm),
        ]

    def one_hot_product(self, bins: list, mask: Tensor) -> Tensor:
        absent = mask.new_zeros(*mask.shape, 1)
        blocks = [
            absent.expand(*mask.shape, classes) if index is None else F.one_hot(index, classes).to(mask.dtype)
            for index, classes in zip(bins, self.classes)
        ]
        return self.linear_out(torch.cat(blocks, -1) * mask[..., None])

    def table_lookup(self, bins: list) -> Tensor:
        """One row of the weight for each feature; differs from the product in masked pairs only."""
        tables = self.linear_out.weight.T.contiguous().split(self.classes)
        return sum(F.embedding(index, table) for index, table in zip(bins, tables) if index is not None)

    def forward(self, batch: Batch, x_sc: Tensor | None, mask: Tensor, savings: bool) -> Tensor:
        bins = self.bins(batch, x_sc)
        mapped = self.table_lookup(bins) if savings else self.one_hot_product(bins, mask)
        return self.ln_out(mapped) * mask[..., None]


class PairBuilder(nn.Module):
    """The initial pair representation [b, n, n, p], a function of distances, residue numbers and time."""

    def __init__(self, config: Config):
        super().__init__()
        self.init_repr_factory = PairFeatures(config)
        self.cond_factory = ConditioningFactory(
            [TimeEmbedding(config.time_width)], config.time_width, config.conditioning_width, norm=True
        )
        self.adaln = AdaptiveLayerNorm(config.pair_width, config.conditioning_width)

    def forward(self, batch: Batch, x_sc: Tensor | None, mask: Tensor, savings: bool) -> Tensor:
        pair_mask = outer(mask)
        pair = self.init_repr_factory(batch, x_sc, pair_mask, savings)
        conditioning = self.cond_factory(batch.t, pair_mask[:, :1, :1].new_ones(len(mask), 1, 1) if savings else pair_mask)
        return self.adaln(pair, Conditioning(conditioning), pair_mask)


class TriangleMultiplication(nn.Module):
    """Sum over the third corner, channel by channel; `outgoing` sums over columns, else over rows."""

    def __init__(self, pair: int, width: int, outgoing: bool):
        super().__init__()
        self.equation = "bikc,bjkc->bijc" if outgoing else "bkic,bkjc->bijc"
        self.layer_norm_in, self.layer_norm_out = nn.LayerNorm(pair), nn.LayerNorm(width)
        self.linear_a_p, self.linear_a_g = nn.Linear(pair, width), nn.Linear(pair, width)
        self.linear_b_p, self.linear_b_g = nn.Linear(pair, width), nn.Linear(pair, width)
        self.linear_g, self.linear_z = nn.Linear(pair, pair), nn.Linear(width, pair)

    def forward(self, pair: Tensor, pair_mask: Tensor) -> Tensor:
        pair = self.layer_norm_in(pair)
        a = pair_mask[..., None] * self.linear_a_p(pair) * self.linear_a_g(pair).sigmoid()
        b = pair_mask[..., None] * self.linear_b_p(pair) * self.linear_b_g(pair).sigmoid()
        product = torch.einsum(self.equation, a, b)
        return self.linear_z(self.layer_norm_out(product)) * self.linear_g(pair).sigmoid()


class PairTransition(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(width)
        self.linear_1, self.linear_2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, pair: Tensor, pair_mask: Tensor) -> Tensor:
        return self.linear_2(self.linear_1(self.layer_norm(pair)).relu()) * pair_mask[..., None]


class PairUpdate(nn.Module):
    """Tokens [b, N, d] into the pair representation [b, N, N, p], then triangles and a transition."""

    def __init__(self, config: Config):
        super().__init__()
        pair, triangle = config.pair_width, config.triangle_width
        self.layer_norm_in = nn.LayerNorm(config.token_width)
        self.linear_x = nn.Linear(config.token_width, 2 * pair, bias=False)
        self.tri_mult_out = TriangleMultiplication(pair, triangle, outgoing=True)
        self.tri_mult_in = TriangleMultiplication(pair, triangle, outgoing=False)
        self.transition_out = PairTransition(pair)

    def forward(self, x: Tensor, pair: Tensor, mask: Tensor, pair_mask: Tensor) -> Tensor:
        of_column, of_row = self.linear_x(self.layer_norm_in(x * mask[..., None])).chunk(2, -1)
        pair = (pair + of_column[:, None] + of_row[:, :, None]) * pair_mask[..., None]
        for part in (self.tri_mult_out, self.tri_mult_in, self.transition_out):
            pair = (pair + part(pair, pair_mask)) * pair_mask[..., None]
        return pair


# --- the whole network -----------------------------------------------------------------------------------------------


class TokenFeatures(nn.Module):
    """Linear map of the residue features other than x_t, masked: [b, n, d]."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.linear_out = nn.Linear(config.index_width + 4, config.token_width, bias=False)

    def forward(self, batch: Batch, x_sc: Tensor | None, mask: Tensor) -> Tensor:
        dtype = batch.x_t.dtype
        features = {
            "index": index_embedding(batch.residue_pdb_idx, self.config.index_width).to(dtype),
            "chain_break": batch.chain_breaks_per_residue[..., None].to(dtype),
            "self_conditioning": torch.zeros_like(batch.x_t) if x_sc is None else x_sc,
        }
        joined = torch.cat([features[name] for name in self.config.token_features], -1)
        return self.linear_out(joined * mask[..., None]) * mask[..., None]


class Proteina(nn.Module):
    """The velocity field, freshly initialised from torch's global random stream."""

    def __init__(self, config: Config, savings: bool = False):
        super().__init__()
        self.config, self.savings = config, savings
        width, conditioning, pair = config.token_width, config.conditioning_width, config.pair_width
        self.registers = nn.Parameter(torch.empty(config.registers, width))
        self.linear_3d_embed = nn.Linear(3, width, bias=False)
        self.init_repr_factory = TokenFeatures(config)
        creators = [TimeEmbedding(config.time_width), FoldEmbedding(config.fold_width)]
        features = config.time_width + 3 * config.fold_width
        self.cond_factory = ConditioningFactory(creators, features, conditioning, norm=False)
        self.transition_c_1, self.transition_c_2 = Transition(conditioning, 2), Transition(conditioning, 2)
        self.pair_repr_builder = PairBuilder(config)
        self.transformer_layers = nn.ModuleList(TrunkLayer(config) for _ in range(config.layers))
        if config.update_layers:
            self.pair_update_layers = nn.ModuleDict({str(layer): PairUpdate(config) for layer in config.update_layers})
            self.pair_head_prediction = nn.Sequential(nn.LayerNorm(pair), nn.Linear(pair, config.distogram_bins))
        self.coors_3d_decoder = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3, bias=False))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """torch's own initialisation but for registers, output scales and the branches of the pair updates."""
        self.registers.normal_(std=1 / 20)
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            if name.endswith("to_adaln_zero_gamma.0"):
                fill(module, 0.0, -2.0)
            elif name.endswith(("linear_a_p", "linear_b_p")):
                truncated_normal(module, variance=1 / module.in_features)
            elif name.endswith("transition_out.linear_1"):
                truncated_normal(module, variance=2 / module.in_features)
            elif name.endswith(("linear_a_g", "linear_b_g", "linear_g")):
                fill(module, 0.0, 1.0)
            elif name.endswith(("linear_z", "transition_out.linear_2")):
                fill(module, 0.0, 0.0)

    def conditioning(self, batch: Batch, mask: Tensor) -> Conditioning:
        """For residues what the protein's features say, for registers zero."""
        where = mask.new_ones(len(mask), 1) if self.savings else mask
        vectors = self.transition_c_2(self.transition_c_1(self.cond_factory(batch.t, where), where), where)
        registers = self.config.registers
        if self.savings:
            return Conditioning(F.pad(vectors, (0, 0, 1, 0)), (registers, mask.shape[1]))
        return Conditioning(F.pad(vectors, (0, 0, registers, 0)))

    def forward(self, batch: Batch, x_sc: Tensor | None = None) -> Prediction:
        """`x_sc` [b, n, 3] nm: an earlier prediction of the clean sample."""
        registers, mask = self.config.registers, batch.mask.to(batch.x_t.dtype)
        embedded = self.linear_3d_embed(batch.x_t * mask[..., None]) * mask[..., None]
        residues = embedded + self.init_repr_factory(batch, x_sc, mask)
        tokens = torch.cat([self.registers.expand(len(mask), -1, -1), residues], 1)
        conditioning = self.conditioning(batch, mask)
        pair = self.pair_repr_builder(batch, x_sc, mask, self.savings)
        pair = F.pad(pair, (0, 0, registers, 0, registers, 0))
        tokens, pair = self.trunk(tokens, pair, conditioning, F.pad(mask, (registers, 0), value=1.0))
        velocity = self.coors_3d_decoder(tokens[:, registers:]) * mask[..., None]
        logits = self.pair_head_prediction(pair[:, registers:, registers:]) if self.config.update_layers else None
        return Prediction(velocity, logits)

    def trunk(self, tokens: Tensor, pair: Tensor, conditioning: Conditioning, mask: Tensor) -> tuple[Tensor, Tensor]:
        pair_mask = outer(mask)
        for index, layer in enumerate(self.transformer_layers):
            tokens = layer(tokens, pair, conditioning, mask, pair_mask)
            if index in self.config.update_layers:
                pair = self.pair_update_layers[str(index)](tokens, pair, mask, pair_mask)
        return tokens, pair


def fill(linear: nn.Linear, weight: float, bias: float) -> None:
    nn.init.constant_(linear.weight, weight)
    nn.init.constant_(linear.bias, bias)


def truncated_normal(linear: nn.Linear, variance: float) -> None:
    """Cut at two standard deviations of the normal; 0.8796 is what the cut leaves of one."""
    scale = math.sqrt(variance) / 0.8796
    nn.init.trunc_normal_(linear.weight, std=scale, a=-2 * scale, b=2 * scale)
    nn.init.zeros_(linear.bias)


# --- losses and training ---------------------------------------------------------------------------------------------


def per_protein(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid residues and components, [..., b, n, 3] -> [..., b]."""
    mask = mask.to(values.dtype)
    return (values * mask[..., None]).sum((-2, -1)) / (3 * mask.sum(-1))


def velocity_mse(velocity: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Every protein counts the same, whatever its length. nm^2."""
    return per_protein((velocity - target).square(), mask).mean()


def clean_sample(x_t: Tensor, t: Tensor, velocity: Tensor) -> Tensor:
    """x_1 on the straight path through x_t with this velocity."""
    return x_t + (1 - t)[:, None, None] * velocity


def flow_matching_loss(velocity: Tensor, target: Tensor, t: Tensor, mask: Tensor) -> Tensor:
    """[b]: the error of the clean sample over ((1 - t)^2 + 1e-5), a velocity error except close to t = 1."""
    squared = (1 - t).square()
    return squared / (squared + 1e-5) * per_protein((velocity - target).square(), mask)


def distogram_loss(logits: Tensor, x_1: Tensor, t: Tensor, mask: Tensor, max_nm: float) -> Tensor:
    """[b]: mean cross entropy over ordered pairs, the diagonal included; zero for early flow times."""
    mask = mask.to(logits.dtype)
    classes = logits.shape[-1]
    bins = distance_bins(x_1, classes, 0.0, max_nm)
    entropy = F.cross_entropy(logits.flatten(0, 2), bins.flatten(), reduction="none").view_as(bins)
    mean = (entropy * outer(mask)).sum((1, 2)) / (mask.sum(1).square() + 1e-10)
    return mean * (t > AUX_FROM_T)


def training_loss(prediction: Prediction, batch: Batch, target: Tensor, config: Config) -> Tensor:
    """`target` [b, n, 3] is the velocity x_1 - x_0 of the path that x_t lies on."""
    loss = flow_matching_loss(prediction.velocity, target, batch.t, batch.mask).mean()
    if prediction.pair_logits is None:
        return loss
    x_1 = clean_sample(batch.x_t, batch.t, target)
    auxiliary = distogram_loss(prediction.pair_logits, x_1, batch.t, batch.mask, config.distogram_max_nm)
    return loss + auxiliary.mean()


class Trainer:
    """Adam with the recipe of the public configuration: constant rate, clipping, moving average of the weights."""

    def __init__(self, model: Proteina, rate=1e-4, clip=1.0, decay=0.999, **adam):
        self.model, self.clip, self.ema_decay = model, clip, decay
        self.parameters = list(model.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.Adam(self.parameters, lr=rate, **adam)

    def update(self, loss: Tensor) -> float:
        """Backward, clip, Adam, moving average. Returns the gradient norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1 - self.ema_decay)
        return float(norm)
