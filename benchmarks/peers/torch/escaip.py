"""EScAIP (the 6.14 M parameter version trained on SPICE) in plain eager PyTorch.

An independent implementation from a written specification, used as the peer that the Rust program is timed against and
compared with. It keeps the structure of the reference: padded neighbour slots [N, M], dense radial features, graph
construction at every step, GELU in its erf form, dropout on in training. Parameter names are the reference's names.

Letters: N atoms, G molecules, M neighbour slots, H hidden width, K bond-orientational orders, B radial functions.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORCE_SCALE_EV_PER_A = 1.0757999822144813
ENERGY_MEAN_EV, ENERGY_SCALE_EV = -140.80356519035792, 69.1667169308504


@dataclass(frozen=True)
class Config:
    """Sizes and rates; the defaults are the "6M" network."""

    hidden: int = 128
    heads: int = 8
    layers: int = 6
    neighbors: int = 20
    cutoff_a: float = 12.0
    elements: int = 110
    atom_embedding: int = 128
    radial_functions: int = 600
    radial_embedding: int = 512
    boo_orders: int = 10
    boo_embedding: int = 64
    ffn_multiplier: int = 2
    readout_multiplier: int = 2
    output_multiplier: int = 2
    attention_dropout: float = 0.1
    mlp_dropout: float = 0.05

    @property
    def edge_features(self) -> int:
        return self.radial_embedding + 2 * self.boo_embedding + 2 * self.atom_embedding


SIZES = {"6M": Config(), "4M": Config(layers=4), "1M": Config(hidden=64, layers=1)}


# --- graph: nothing learnt -------------------------------------------------------------------------------------------


class Graph(NamedTuple):
    """A batch as the network sees it. Every tensor but `direction` is invariant under rotation."""

    atomic_numbers: Tensor  # [N]
    molecule: Tensor  # [N], index of the molecule of each atom
    atoms_per_molecule: Tensor  # [G]
    senders: Tensor  # [N, M] neighbour indices, 0 in empty slots
    mask: Tensor  # [N, M] bool, False in empty slots
    direction: Tensor  # [N, M, 3] unit vectors neighbour -> centre, zero in empty slots
    radial: Tensor  # [N, M, B]
    boo: Tensor  # [N, K]
    angle_cosine: Tensor  # [N, M, M]

    def rotate(self, rotation: Tensor) -> "Graph":
        """The graph of the molecule turned by x -> T x, with the neighbours kept."""
        return self._replace(direction=self.direction @ rotation.T)


def find_neighbors(positions: Tensor, offsets: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """The nearest `config.neighbors` atoms within the cutoff, as (senders [N, M], mask [N, M]).

    Order of preference is (distance squared, sender index); slots are filled by ascending sender index. An atom without
    neighbours gets itself in slot 0.
    """
    atoms, slots = len(positions), config.neighbors
    counts = offsets.diff()
    # Dense candidates per molecule: [N, largest molecule], the rows of other molecules' atoms marked as absent.
    first = offsets[:-1].repeat_interleave(counts)
    column = torch.arange(max(int(counts.max()), slots), device=positions.device)
    present = column < counts.repeat_interleave(counts)[:, None]
    candidate = torch.where(present, first[:, None] + column, 0)
    distance_sq = (positions[candidate] - positions[:, None]).square().sum(-1)
    present &= (distance_sq > 1e-4) & (distance_sq <= config.cutoff_a**2)
    distance_sq = torch.where(present, distance_sq, torch.inf)
    nearest = distance_sq.sort(dim=1, stable=True).indices[:, :slots]
    # Empty slots sort behind every sender, the kept ones by index.
    key = torch.where(present.gather(1, nearest), candidate.gather(1, nearest), atoms)
    senders = key.sort(dim=1).values
    mask = senders < atoms
    lonely = ~mask[:, 0]
    senders = torch.where(mask, senders, 0)
    senders[:, 0] = torch.where(lonely, torch.arange(atoms, device=positions.device), senders[:, 0])
    mask[:, 0] = True
    return senders, mask


def bond_orientational_order(cosine: Tensor, pair_mask: Tensor, bonds: Tensor, orders: int) -> Tensor:
    """q_l [N, K] from the addition theorem: q_l^2 = (2l+1)/n^2 sum_jk P_l(cos_jk)."""
    previous, current = torch.ones_like(cosine), cosine
    sums = [(previous * pair_mask).sum((1, 2))]
    for order in range(1, orders):
        sums.append((current * pair_mask).sum((1, 2)))
        step = ((2 * order + 1) * cosine * current - order * previous) / (order + 1)
        previous, current = current, step
    weight = 2 * torch.arange(orders, dtype=cosine.dtype, device=cosine.device) + 1
    q_sq = torch.stack(sums, dim=1) * weight / bonds.clamp(min=1).square()[:, None]
    return q_sq.clamp(min=0).sqrt()


def build_graph(
    positions: Tensor,
    atomic_numbers: Tensor,
    offsets: Tensor,
    config: Config,
    dtype: torch.dtype,
    neighbors: tuple[Tensor, Tensor] | None = None,
) -> Graph:
    """Everything the network needs from positions [N, 3] in angstrom; molecule g owns atoms offsets[g]..offsets[g+1].

    Geometry is computed in f64 (P_9 and the square root of the orders amplify rounding), then cast to `dtype`. Give
    `neighbors` to reuse the list of an unrotated copy.
    """
    positions = positions.double()
    counts = offsets.diff()
    molecule = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    senders, mask = neighbors or find_neighbors(positions, offsets, config)
    displacement = positions[:, None] - positions[senders]
    distance = displacement.norm(dim=-1)
    bond = mask & (distance > 0)  # all but empty slots and the self loop of a lonely atom
    direction = torch.where(bond[..., None], displacement / distance.where(bond, 1.0)[..., None], 0.0)
    lonely = ~bond[:, 0]
    pairs = direction @ direction.mT
    boo = bond_orientational_order(pairs, bond[:, :, None] & bond[:, None, :], bond.sum(1).double(), config.boo_orders)
    direction[lonely, 0, 0] = 1.0
    pairs[lonely, 0, 0] = 1.0
    centers = torch.linspace(0, config.cutoff_a, config.radial_functions, dtype=dtype, device=positions.device)
    width = 2 * config.cutoff_a / (config.radial_functions - 1)
    exponent = -0.5 * ((distance.to(dtype)[..., None] - centers) / width).square()
    # The clamp changes values below 2e-35 only; without it f32 results become denormal and exp takes ten times as long.
    radial = exponent.clamp(min=-80).exp() * bond[..., None]
    return Graph(
        atomic_numbers, molecule, counts, senders, mask, direction.to(dtype), radial, boo.to(dtype), pairs.to(dtype)
    )


# --- building blocks -------------------------------------------------------------------------------------------------


def activated(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    """`lin(a -> b)`: affine, GELU, dropout."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.GELU(), nn.Dropout(dropout))


def feed_forward(width: int, multiplier: int, dropout: float) -> nn.Sequential:
    """`ffn(H, m)`: affine H -> mH, GELU, dropout, affine mH -> H, dropout."""
    inner = multiplier * width
    return nn.Sequential(
        activated(width, inner, dropout), nn.Sequential(nn.Linear(inner, width), nn.Dropout(dropout))
    )


def mean_over_neighbors(edge: Tensor, mask: Tensor) -> Tensor:
    """`agg`: [N, M, H] -> [N, H]; the 1e-5 belongs to the definition."""
    weight = mask.to(edge.dtype)
    return (edge * weight[..., None]).sum(1) / (weight.sum(1, keepdim=True) + 1e-5)


class NodeEdgeNorm(nn.Module):
    """Root-mean-square norms for the node and the edge state; eps is the machine epsilon of the dtype."""

    def __init__(self, width: int):
        super().__init__()
        self.node_norm, self.edge_norm = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, node: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        return self.node_norm(node), self.edge_norm(edge)


class EdgeAttributes(nn.Module):
    """The invariant description g_ij of an edge, mapped to the hidden width. Base of the input layer and the attention."""

    def __init__(self, config: Config):
        super().__init__()
        drop, atom, boo = config.mlp_dropout, config.atom_embedding, config.boo_embedding
        self.edge_distance_embedding = activated(config.radial_functions, config.radial_embedding, drop)
        self.source_direction_embedding = activated(config.boo_orders, boo, drop)
        self.target_direction_embedding = activated(config.boo_orders, boo, drop)
        self.source_atomic_embedding = nn.Embedding(config.elements, atom)
        self.target_atomic_embedding = nn.Embedding(config.elements, atom)
        self.edge_linear = activated(config.edge_features, config.hidden, drop)

    def edge_attributes(self, graph: Graph) -> Tensor:
        """[N, M, H]."""
        source = torch.cat([self.source_direction_embedding(graph.boo), self.source_atomic_embedding(graph.atomic_numbers)], -1)
        target = torch.cat([self.target_direction_embedding(graph.boo), self.target_atomic_embedding(graph.atomic_numbers)], -1)
        slots = graph.senders.shape[1]
        parts = [self.edge_distance_embedding(graph.radial), source[graph.senders], target[:, None].expand(-1, slots, -1)]
        return self.edge_linear(torch.cat(parts, -1))


class InputLayer(EdgeAttributes):
    """First node and edge state from the edge attributes alone."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.edge_ffn = feed_forward(config.hidden, 1, config.mlp_dropout)
        self.norm = nn.RMSNorm(config.hidden)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        edge = self.edge_attributes(graph)
        edge = edge + self.edge_ffn(self.norm(edge))
        return mean_over_neighbors(edge, graph.mask), edge


class InputBlock(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.input_layer, self.norm = InputLayer(config), NodeEdgeNorm(config.hidden)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        return self.norm(*self.input_layer(graph))


class SelfAttention(nn.Module):
    """Multi-head self-attention over the slots of each centre, [N, M, H] -> [N, M, H], with an additive score bias."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, state: Tensor, bias: Tensor) -> Tensor:
        atoms, slots, width = state.shape
        packed = F.linear(state, self.in_proj_weight, self.in_proj_bias)
        query, key, value = packed.view(atoms, slots, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[:, None], dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).reshape(atoms, slots, width))


class GraphAttention(EdgeAttributes):
    """Messages from edge attributes and node states, attended over the neighbours. The running edge state is no input."""

    def __init__(self, config: Config):
        super().__init__(config)
        width = config.hidden
        self.node_linear = activated(2 * width, width, config.mlp_dropout)
        self.message_linear = activated(2 * width, width, 0.0)
        self.multi_head_attention = SelfAttention(width, config.heads, config.attention_dropout)
        self.attn_scalar = nn.Parameter(torch.tensor(1.0))

    def forward(self, graph: Graph, node: Tensor) -> tuple[Tensor, Tensor]:
        slots = graph.senders.shape[1]
        ends = torch.cat([node[graph.senders], node[:, None].expand(-1, slots, -1)], -1)
        message = self.message_linear(torch.cat([self.edge_attributes(graph), self.node_linear(ends)], -1))
        bias = (self.attn_scalar * graph.angle_cosine).masked_fill(~graph.mask[:, None, :], -torch.inf)
        edge = self.multi_head_attention(message, bias)
        return mean_over_neighbors(edge, graph.mask), edge


class FeedForwardPair(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.mlp_node = feed_forward(config.hidden, config.ffn_multiplier, config.mlp_dropout)
        self.mlp_edge = feed_forward(config.hidden, config.ffn_multiplier, config.mlp_dropout)

    def forward(self, node: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        return self.mlp_node(node), self.mlp_edge(edge)


class TransformerBlock(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.norm_attn = nn.RMSNorm(config.hidden)
        self.graph_attention = GraphAttention(config)
        self.norm_ffn = NodeEdgeNorm(config.hidden)
        self.feedforward = FeedForwardPair(config)

    def forward(self, graph: Graph, node: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        node_step, edge_step = self.graph_attention(graph, self.norm_attn(node))
        node, edge = node + node_step, edge + edge_step
        node_step, edge_step = self.feedforward(*self.norm_ffn(node, edge))
        return node + node_step, edge + edge_step


class Readout(nn.Module):
    """`energy_*` acts on the node state, `force_*` on the edge state."""

    def __init__(self, config: Config):
        super().__init__()
        arguments = config.hidden, config.readout_multiplier, config.mlp_dropout
        self.energy_norm, self.force_norm = nn.RMSNorm(config.hidden), nn.RMSNorm(config.hidden)
        self.energy_ffn, self.force_ffn = feed_forward(*arguments), feed_forward(*arguments)

    def forward(self, node: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        return node + self.energy_ffn(self.energy_norm(node)), edge + self.force_ffn(self.force_norm(edge))


class OutputProjection(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        joint = (config.layers + 1) * config.hidden
        self.readout_norm, self.output_norm = NodeEdgeNorm(joint), NodeEdgeNorm(config.hidden)
        self.node_projection = activated(joint, config.hidden, 0.0)
        self.edge_projection = activated(joint, config.hidden, 0.0)

    def forward(self, nodes: list[Tensor], edges: list[Tensor]) -> tuple[Tensor, Tensor]:
        node, edge = self.readout_norm(torch.cat(nodes, -1), torch.cat(edges, -1))
        return self.output_norm(self.node_projection(node), self.edge_projection(edge))


class Backbone(nn.Module):
    """Graph -> (X [N, H], Z [N, M, H]), both invariant under rotation."""

    def __init__(self, config: Config):
        super().__init__()
        self.input_block = InputBlock(config)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.layers))
        self.readout_layers = nn.ModuleList(Readout(config) for _ in range(config.layers + 1))
        self.output_projection = OutputProjection(config)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        node, edge = self.input_block(graph)
        readouts = [self.readout_layers[0](node, edge)]
        for block, readout in zip(self.transformer_blocks, self.readout_layers[1:]):
            node, edge = block(graph, node, edge)
            readouts.append(readout(node, edge))
        nodes, edges = zip(*readouts)
        return self.output_projection(list(nodes), list(edges))


# --- heads and the whole network -------------------------------------------------------------------------------------


class OutputLayer(nn.Module):
    """`out(v; k)`: residual feed-forward without a norm, then a linear map without a bias."""

    def __init__(self, config: Config, outputs: int):
        super().__init__()
        self.ffn = feed_forward(config.hidden, config.output_multiplier, config.mlp_dropout)
        self.final_output = nn.Sequential(nn.Linear(config.hidden, outputs, bias=False))

    def forward(self, state: Tensor) -> Tensor:
        return self.final_output(state + self.ffn(state))


class EnergyHead(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.energy_layer = OutputLayer(config, 1)

    def forward(self, graph: Graph, node: Tensor) -> Tensor:
        """Mean over the atoms of each molecule, [G, 1]."""
        totals = node.new_zeros(len(graph.atoms_per_molecule), 1)
        return totals.index_add(0, graph.molecule, self.energy_layer(node)) / graph.atoms_per_molecule[:, None]


class ForceHead(nn.Module):
    """f_i = m_i sum_j a_ij (.) u_ij, component by component: the only place where equivariance is lost."""

    def __init__(self, config: Config):
        super().__init__()
        self.force_direction_layer, self.force_magnitude_layer = OutputLayer(config, 3), OutputLayer(config, 1)

    def coefficients(self, node: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        """(m [N, 1], a [N, M, 3]), both invariant."""
        return self.force_magnitude_layer(node), self.force_direction_layer(edge)

    def forward(self, graph: Graph, node: Tensor, edge: Tensor) -> Tensor:
        magnitude, direction = self.coefficients(node, edge)
        return magnitude * (direction * graph.direction).sum(1)


class Prediction(NamedTuple):
    """Normalised outputs: forces [N, 3] in units of FORCE_SCALE_EV_PER_A, energy [G, 1] in standard deviations."""

    forces: Tensor
    energy: Tensor | None


class Escaip(nn.Module):
    """The whole network, freshly initialised from torch's global random stream."""

    def __init__(self, config: Config, energy_head: bool = True):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        heads = {"energy": EnergyHead(config)} if energy_head else {}
        self.output_heads = nn.ModuleDict({**heads, "forces": ForceHead(config)})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "atomic_embedding" in name:
                nn.init.uniform_(parameter, -0.001, 0.001)
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter, gain=0.01 if "heads.energy" in name else 1.0)
            else:
                nn.init.ones_(parameter)  # norm gains and attention scalars

    def forward(self, graph: Graph) -> Prediction:
        node, edge = self.backbone(graph)
        forces = self.output_heads["forces"](graph, node, edge)
        energy = self.output_heads["energy"](graph, node) if "energy" in self.output_heads else None
        return Prediction(forces, energy)

    def graph(self, positions: Tensor, atomic_numbers: Tensor, offsets: Tensor, neighbors=None) -> Graph:
        """`build_graph` with this network's sizes and dtype."""
        dtype = next(self.parameters()).dtype
        return build_graph(positions, atomic_numbers, offsets, self.config, dtype, neighbors)


# --- losses and training ---------------------------------------------------------------------------------------------


def force_mse(forces: Tensor, target: Tensor) -> Tensor:
    """Mean over all 3N components of the batch."""
    return (forces - target).square().mean()


def reference_loss(prediction: Prediction, target: Tensor, target_energy: Tensor) -> Tensor:
    """The public configuration's loss: 4 MAE(energy) + 100 mean_i |f_i - y_i|."""
    energy = (prediction.energy.squeeze(1) - target_energy).abs().mean()
    return 4 * energy + 100 * (prediction.forces - target).norm(dim=-1).mean()


def learning_rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up from 0.2, then a cosine in s/T (not shifted by the warm-up) that ends at one half."""
    if step <= warmup_steps:
        return 0.2 + 0.8 * step / warmup_steps if warmup_steps else 1.0
    if step < total_steps:
        return 0.5 + 0.25 * (1 + math.cos(math.pi * step / total_steps))
    return 0.5


class Trainer:
    """AdamW with the recipe of the public configuration; parameters without a gradient are left alone."""

    def __init__(self, model: Escaip, warmup_steps: int, total_steps: int, peak_lr=1e-5, clip=10.0, decay=0.999, **adamw):
        self.model, self.clip, self.ema_decay, self.step_index = model, clip, decay, 0
        self.parameters = list(model.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        groups: dict[float, list] = {0.01: [], 0.0: []}
        for name, parameter in model.named_parameters():
            groups[0.0 if "embedding" in name or "bias" in name else 0.01].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "weight_decay": rate} for rate, parameters in groups.items()], lr=peak_lr, **adamw
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, warmup_steps, total_steps)
        )

    def update(self, loss: Tensor) -> float:
        """Backward, clip, AdamW, schedule, moving average. Returns the gradient norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self.parameters, 1 - self.ema_decay)
        return float(norm)
