"""Writes tests/parity: small parity fixtures from our own PyTorch, for whoever lacks those of the reference implementations.

    python3 torch/write_fixtures.py [escaip | proteina | voxmol]...

Weights and inputs are drawn here from fixed seeds; results come from the `*_quantities.py`, which the `test_*_parity.py` compare
with the reference's own fixtures. Weights and inputs are numbers of f32, so that a program in f32 reads the same ones.
"""

import sys
from math import cos, pi, sin
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import escaip_quantities  # noqa: E402
import proteina  # noqa: E402
import proteina_quantities  # noqa: E402
import voxmol_quantities  # noqa: E402
from escaip import Escaip, build_graph  # noqa: E402
from fixtures import COMMITTED, Fixture  # noqa: E402
from proteina import Proteina, distance_bins  # noqa: E402
from voxeliser import PADDING, RESOLUTION_A, cube_rotations, voxelise  # noqa: E402
from voxmol import VoxMol  # noqa: E402

ROTATIONS = 10


class Draws:
    """Random numbers of f32, held in f64."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # fresh weights are drawn from the global stream

    def normal(self, *shape: int) -> Tensor:
        return single(torch.randn(shape, generator=self.generator, dtype=torch.float64))

    def uniform(self, *shape: int) -> Tensor:
        return single(torch.rand(shape, generator=self.generator, dtype=torch.float64))

    def choice(self, values: list[int], count: int) -> Tensor:
        return torch.tensor(values)[torch.randint(len(values), (count,), generator=self.generator)]

    def rotations(self, count: int) -> Tensor:
        """[count, 3, 3] uniform on the group, in f64: the orthogonal factor of a Gaussian matrix, its signs made unique."""
        q, r = torch.linalg.qr(torch.randn(count, 3, 3, generator=self.generator, dtype=torch.float64))
        q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
        return q * torch.linalg.det(q)[:, None, None]


def single(values: Tensor) -> Tensor:
    return values.float().double()


def stored_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {f"w.{name}": value.detach().float() for name, value in model.named_parameters()}


@torch.no_grad()
def perturb(model: torch.nn.Module, draws: Draws, scale_of) -> None:
    """Adds noise to every parameter, `scale_of` its name and shape, so that nothing is trivially 0 or 1."""
    for name, parameter in model.named_parameters():
        parameter += scale_of(name, parameter) * draws.normal(*parameter.shape).to(parameter.dtype)


# --- EScAIP ----------------------------------------------------------------------------------------------------------

ESCAIP_CONFIG = {
    "hidden_size": 6,
    "atten_num_heads": 2,
    "num_layers": 2,
    "max_neighbors": 5,
    "max_radius": 2.6,
    "max_num_elements": 10,
    "atom_embedding_size": 5,
    "edge_distance_expansion_size": 20,
    "edge_distance_embedding_size": 8,
    "node_direction_expansion_size": 4,
    "node_direction_embedding_size": 4,
    "ffn_hidden_layer_multiplier": 2,
    "readout_hidden_layer_multiplier": 2,
    "output_hidden_layer_multiplier": 2,
    "atten_dropout": 0.0,
    "mlp_dropout": 0.0,
    "stochastic_depth_prob": 0.0,
}
# Odd numbers of molecules: of an even one, signs of energy errors can cancel and leave gradients that are zero but for rounding.
ESCAIP = {
    "own_a": (11, [5, 4, 7], ESCAIP_CONFIG),
    "own_b": (12, [9, 3, 4], ESCAIP_CONFIG | {"hidden_size": 8, "atten_num_heads": 4, "num_layers": 1, "max_neighbors": 7, "max_radius": 3.1}),
}
# Neighbours must not change sides by rounding: no two of their distances, and none and the cutoff, are closer.
LEAST_GAP_A = 1e-3


def write_escaip() -> None:
    for name, (seed, atoms, config) in ESCAIP.items():
        draws, ours = Draws(seed), escaip_quantities.read_config(config)
        model = Escaip(ours).double()
        perturb(model, draws, lambda name, value: 0.5 if "atomic_embedding" in name else 0.2 if value.dim() < 2 else 0.0)
        given = stored_weights(model) | molecules(draws, atoms, ours)
        found, report = escaip_quantities.quantities(ours, given)
        check_graph(given, ours, found)
        report = {"name": name, "config": config, "seed": seed, **report}
        Fixture(name, report, given | found).write(COMMITTED / "escaip")


def molecules(draws: Draws, atoms: list[int], config) -> dict[str, Tensor]:
    positions = torch.cat([centred(cluster(draws, count)) for count in atoms])
    numbers, graphs = draws.choice([1, 6, 7, 8], len(positions)), len(atoms)
    water_and_ion = torch.tensor([[0.0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0], [30, 0, 0]], dtype=torch.float64)
    return {
        "in.positions": positions,
        "in.atomic_numbers": numbers,
        "in.natoms": torch.tensor(atoms),
        "in.batch": torch.arange(graphs).repeat_interleave(torch.tensor(atoms)),
        "in.target": single(3 * draws.normal(len(positions), 3)),
        "in.target_energy": draws.normal(graphs),
        "in.rotations": draws.rotations(ROTATIONS),
        "sing.positions": single(water_and_ion),
        "sing.atomic_numbers": torch.tensor([8, 1, 1, 9]),
    }


def cluster(draws: Draws, count: int) -> Tensor:
    """Atoms [count, 3], each about a bond away from an earlier one and not closer to any; angstrom."""
    found = [torch.zeros(3, dtype=torch.float64)]
    while len(found) < count:
        direction = draws.normal(3)
        start = found[int(draws.uniform(1) * len(found))]
        place = start + direction / direction.norm() * (1.0 + 0.5 * draws.uniform(1))
        if (torch.stack(found) - place).norm(dim=1).min() > 0.95:
            found.append(place)
    return torch.stack(found)


def centred(points: Tensor) -> Tensor:
    return single(points - points.mean(0))


def check_graph(given: dict[str, Tensor], config, found: dict[str, Tensor]) -> None:
    """Lists are cut off and slots stay empty, and no neighbour is in doubt."""
    positions, molecule = given["in.positions"], given["in.batch"]
    distance = torch.cdist(positions, positions)
    pair = (molecule[:, None] == molecule) & (distance > 0)
    candidates = (pair & (distance <= config.cutoff_a)).sum(1)
    assert (candidates > config.neighbors).any() and (candidates < config.neighbors).any()
    for row, same in zip(distance, pair):
        ranked = torch.cat([row[same], torch.tensor([config.cutoff_a], dtype=torch.float64)]).sort().values
        assert ranked.diff().min() > LEAST_GAP_A, ranked
    assert not (found["sing.neighbor_mask"].sum(1) == 0).any()


# --- Proteina --------------------------------------------------------------------------------------------------------

PROTEINA_CONFIG = {
    "token_dim": 16,
    "nlayers": 2,
    "nheads": 4,
    "dim_cond": 10,
    "t_emb_dim": 8,
    "idx_emb_dim": 6,
    "fold_emb_dim": 3,
    "pair_repr_dim": 9,
    "num_registers": 3,
    "xt_pair_dist_dim": 12,
    "xt_pair_dist_min": 0.1,
    "xt_pair_dist_max": 3.0,
    "x_sc_pair_dist_dim": 14,
    "x_sc_pair_dist_min": 0.1,
    "x_sc_pair_dist_max": 3.0,
    "seq_sep_dim": 15,
    "num_buckets_predict_pair": 9,
    "update_pair_repr": False,
    "update_pair_repr_every_n": 2,
    "feats_init_seq": ["res_seq_pdb_idx", "chain_break_per_res", "x_sc"],
}
TRIANGLES = {
    "token_dim": 12,
    "nlayers": 3,
    "nheads": 2,
    "update_pair_repr": True,
    "tri_mult_c": 7,
    "num_registers": 4,
    "feats_init_seq": ["res_seq_pdb_idx", "x_sc", "chain_break_per_res"],
}
PROTEINA = {
    "own_notri": (21, [9, 7, 5], [0.4, 0.75, 0.1], PROTEINA_CONFIG),
    "own_tri": (22, [6, 8, 5], [0.6, 0.25, 0.95], PROTEINA_CONFIG | TRIANGLES),
}
CONTROL_CONFIG = PROTEINA_CONFIG | TRIANGLES | {"token_dim": 24, "nlayers": 2, "update_pair_repr_every_n": 1}
PROTEINA_LOSS = {"aux_loss_t_lim": proteina.AUX_FROM_T, "aux_loss_weight": 1.0, "max_dist_boundary": 1.0}
PROTEINA_OPT = {"lr": 1e-4, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "grad_clip_norm": 1.0, "ema_decay": 0.999}
# Distances in f32 and in f64 must be of the same class; predictions deviate by 4e-6 nm. What a ReLU reads must be of the same sign;
# one that read 7e-6 had the other in f32, and gradients 1e-5 off.
LEAST_GAP_NM = 2e-5
LEAST_ACTIVATION = 1e-4
SELECTED = [
    "registers",
    "linear_3d_embed.weight",
    "init_repr_factory.linear_out.weight",
    "transition_c_1.swish_linear.0.weight",
    "pair_repr_builder.init_repr_factory.linear_out.weight",
    "transformer_layers.0.mhba.mha.to_bias.weight",
    "transformer_layers.1.transition.scale_output.to_adaln_zero_gamma.0.bias",
    "coors_3d_decoder.1.weight",
    "pair_update_layers.0.linear_x.weight",
    "pair_update_layers.0.tri_mult_in.linear_b_g.weight",
    "pair_head_prediction.1.bias",
]


def write_proteina() -> None:
    for name, (seed, sizes, t, config) in PROTEINA.items():
        draws, ours = Draws(seed), proteina_quantities.read_config(config)
        model = Proteina(ours).double()
        perturb(model, draws, lambda name, value: 0.08)
        with torch.no_grad():
            model.coors_3d_decoder[1].weight *= 1.5
        given = stored_weights(model) | unambiguous_chains(draws, model, sizes, t)
        names = [n for n in SELECTED if f"w.{n}" in given]
        found = proteina_quantities.quantities(ours, given, names)
        report = {"name": name, "nn": config, "loss": PROTEINA_LOSS, "opt": PROTEINA_OPT, "seed": seed, "after3_names": names}
        report["n_params"] = sum(p.numel() for p in model.parameters())
        Fixture(name, report, given | found).write(COMMITTED / "proteina")
    write_control(Draws(23))
    write_initial_values(COMMITTED / "proteina" / "init_stats.json")


def chains(draws: Draws, sizes: list[int], t: list[float]) -> dict[str, Tensor]:
    """Padded C-alpha traces in nm, the second one with a break, on straight paths from noise."""
    longest, proteins = max(sizes), len(sizes)
    mask, breaks = torch.zeros(proteins, longest, dtype=torch.float64), torch.zeros(proteins, longest, dtype=torch.float64)
    numbers = torch.full((proteins, longest), -1)
    x_1, x_0 = torch.zeros(2, proteins, longest, 3, dtype=torch.float64)
    for row, (size, first) in enumerate(zip(sizes, [7, -2, 113])):
        broken = size // 2 if row == 1 else None
        mask[row, :size] = 1
        numbers[row, :size] = first + torch.arange(size) + (0 if broken is None else 5 * (torch.arange(size) > broken))
        if broken is not None:
            breaks[row, broken] = 1
        x_1[row, :size] = centred(trace(draws, size, broken))
        x_0[row, :size] = centred(draws.normal(size, 3))
    times = torch.tensor(t, dtype=torch.float64)
    x_t = (1 - times)[:, None, None] * x_0 + times[:, None, None] * x_1
    return {
        "in.mask": mask,
        "in.residue_pdb_idx": numbers,
        "in.chain_breaks_per_residue": breaks,
        "in.t": times,
        "in.x0": x_0,
        "in.x1": x_1,
        "in.x_t": x_t,
        "in.target": x_1 - x_0,
        "in.rotations": draws.rotations(ROTATIONS),
        "in.tgrid": torch.tensor([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99], dtype=torch.float64),
    }


def trace(draws: Draws, size: int, broken: int | None) -> Tensor:
    """A coil of bonds of 3.8 angstrom, bent by noise, with one of 5.2 after `broken`; [size, 3] nm."""
    turns = [torch.tensor([cos(1.7 * k), sin(1.7 * k), 0.45], dtype=torch.float64) for k in range(size - 1)]
    bonds = torch.stack(turns) + 0.4 * draws.normal(size - 1, 3)
    bonds = 0.38 * bonds / bonds.norm(dim=1, keepdim=True)
    if broken is not None:
        bonds[broken] *= 5.2 / 3.8
    return torch.cat([torch.zeros(1, 3, dtype=torch.float64), bonds.cumsum(0)])


def unambiguous_chains(draws: Draws, model: Proteina, sizes: list[int], t: list[float]) -> dict[str, Tensor]:
    """Drawn until no distance that is sorted into classes is close to the edge between two, and no ReLU close to its kink."""
    while True:
        given = chains(draws, sizes, t)
        weights = stored_weights(model)
        case = proteina_quantities.Case.of(model.config, given | weights)
        given["in.x_sc"] = proteina_quantities.first_guess(case)
        if least_gap(case, given) > LEAST_GAP_NM and least_activation(case) > LEAST_ACTIVATION:
            return given


@torch.no_grad()
def least_gap(case, given: dict[str, Tensor]) -> float:
    """The least distance between a pair distance and an edge: x_t, x_1, and the first guesses of all rotations. nm."""
    config, gaps = case.config, []
    guesses = [proteina_quantities.first_guess(case._replace(batch=batch)) for batch in proteina_quantities.rotated(case, case.batch)]
    paths = [(1 - t) * given["in.x0"] + t * given["in.x1"] for t in given["in.tgrid"]]
    for clouds, bins, low, high in [
        ([case.batch.x_t, *paths], config.position_bins, *config.position_range_nm),
        ([given["in.x_sc"], *guesses], config.self_conditioning_bins, *config.self_conditioning_range_nm),
        ([given["in.x1"]], config.distogram_bins, 0.0, config.distogram_max_nm),
    ]:
        edges = torch.linspace(low, high, bins - 1, dtype=torch.float64)
        assert distance_bins(clouds[0], bins, low, high).max() < bins
        for cloud in clouds:
            distance = (cloud[:, :, None] - cloud[:, None]).norm(dim=-1)
            pairs = proteina.outer(case.batch.mask).bool() & ~torch.eye(cloud.shape[1], dtype=torch.bool)
            gaps.append((distance[pairs][:, None] - edges).abs().min())
    return float(torch.stack(gaps).min())


@torch.no_grad()
def least_activation(case) -> float:
    """The least absolute value that a ReLU of a pair transition reads where there is no padding."""
    read, mask = [torch.tensor(torch.inf)], torch.nn.functional.pad(case.batch.mask, (case.config.registers, 0), value=1.0)
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: read.append(output[proteina.outer(mask).bool()].abs().min()))
        for name, module in case.model.named_modules()
        if name.endswith("transition_out.linear_1")
    ]
    case.model(case.batch)
    for handle in handles:
        handle.remove()
    return float(torch.stack([value.double() for value in read]).min())


def write_control(draws: Draws) -> None:
    """Weights of a family whose predictions turn with their input exactly."""
    config = proteina_quantities.read_config(CONTROL_CONFIG)
    model = Proteina(config).double()
    perturb(model, draws, lambda name, value: 0.08)
    make_equivariant(model, draws)
    given = stored_weights(model) | chains(draws, [7, 9, 6], [0.6, 0.25, 0.8])
    found = proteina_quantities.control_quantities(config, given)
    assert found["out.L_equiv"] < 1e-24 * found["out.L"], found
    kept = {name: value for name, value in given.items() if name not in ("in.x0", "in.x1", "in.tgrid")}
    report = {"name": "own_equivariant_control", "nn": CONTROL_CONFIG, "loss": {}, "seed": 23}
    Fixture("own_equivariant_control", report, kept | found).write(COMMITTED / "proteina")


@torch.no_grad()
def make_equivariant(model: Proteina, draws: Draws) -> None:
    """Channels of every head are (sign, copy, axis): what is a vector per copy stays one, and signs keep every mean at zero.

    All that reads or writes tokens is fitted to that; the pair and time paths stay as they are.
    """
    config = model.config
    copies = config.token_width // (6 * config.heads)
    shape = config.heads, 2, copies, 3
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)

    def vectors() -> Tensor:
        """[d, 3]: a multiple of the identity for each copy."""
        factors = torch.einsum("hm,s->hsm", draws.normal(config.heads, copies), sign)
        return torch.einsum("hsm,xy->hsmxy", factors, torch.eye(3, dtype=torch.float64)).reshape(-1, 3)

    def mixing() -> Tensor:
        """[d, d] between copies, the same for every axis."""
        factors = draws.normal(config.heads, copies, config.heads, copies) / (2 * copies * config.heads) ** 0.5
        block = torch.einsum("hmgn,s,t,xy->hsmxgtny", factors, sign, sign, torch.eye(3, dtype=torch.float64))
        return block.reshape(config.token_width, config.token_width)

    def per_copy(values: Tensor) -> Tensor:
        """The mean over signs and axes, [d, ...]."""
        split = values.view(*shape, *values.shape[1:])
        return split.mean((1, 3), keepdim=True).expand_as(split).reshape(values.shape)

    model.registers.zero_()
    model.linear_3d_embed.weight.copy_(vectors())
    tokens, first = model.init_repr_factory.linear_out.weight, config.index_width
    first += config.token_features.index("self_conditioning") - 1
    tokens.zero_()
    tokens[:, first : first + 3] = vectors()
    for layer in model.transformer_layers:
        for part in (layer.mhba, layer.transition):
            for gate in (part.adaln.to_gamma[0], part.scale_output.to_adaln_zero_gamma[0]):
                gate.weight.copy_(per_copy(gate.weight))
                gate.bias.copy_(per_copy(gate.bias))
            part.adaln.to_beta.weight.zero_()
        attention = layer.mhba.mha
        attention.to_qkv.weight.copy_(torch.cat([mixing(), mixing(), mixing()]))
        attention.to_out_node.weight.copy_(mixing())
        attention.to_g.weight.zero_()
        attention.to_g.bias.copy_(per_copy(attention.to_g.bias))
        for norm in (attention.node_norm, attention.q_layer_norm, attention.k_layer_norm):
            norm.weight.copy_(per_copy(norm.weight))
            norm.bias.zero_()
        for linear in (attention.to_qkv, attention.to_out_node):
            linear.bias.zero_()
        swish = layer.transition.transition.swish_linear[0].weight
        swish[len(swish) // 2 :] = 0
    for update in model.pair_update_layers.values():
        update.linear_x.weight.zero_()
    norm, head = model.coors_3d_decoder
    norm.weight.copy_(per_copy(norm.weight))
    norm.bias.zero_()
    head.weight.copy_(vectors().T)


def write_initial_values(path: Path) -> None:
    """Moments of fresh parameters of a network of two layers; the second is like the first and left out."""
    torch.manual_seed(0)
    model = Proteina(proteina.Config(layers=2, update_every=2))
    rows = []
    for name, value in model.named_parameters():
        if not name.startswith("transformer_layers.1."):
            moments = value.mean(), value.std(correction=0), value.min(), value.max()
            rows.append([name, list(value.shape), *(moment.item() for moment in moments)])
    about = "fresh weights of proteina.py, 60M_tri with two layers, torch seed 0"
    lines = ",\n".join("  " + json_line(row) for row in rows)
    columns = '["name", "shape", "mean", "std", "min", "max"]'
    path.write_text(f'{{"source": "{about}", "columns": {columns}, "rows": [\n{lines}\n]}}\n')
    print(f"{path.parent.name}/{path.name}: {len(rows)} parameters")


def json_line(row: list) -> str:
    return str(row).replace("'", '"')


# --- VoxMol ----------------------------------------------------------------------------------------------------------

VOXMOL_CONFIG = {"n_elements": 2, "n_channels": 2, "ch_mults": [1, 2], "is_attn": [False, True], "n_blocks": 2, "n_groups": 1}
VOXMOL_CONFIG |= {"grid_dim": 8, "batch": 2, "dropout": 0.0}
VOXMOL_B = {"n_elements": 3, "n_channels": 3, "ch_mults": [1, 2, 1], "is_attn": [False, True, False], "n_blocks": 1, "n_groups": 3, "batch": 1}
VOXMOL = {
    "own_a": (31, [5, 3], VOXMOL_CONFIG),
    "own_b": (32, [6], VOXMOL_CONFIG | VOXMOL_B),
}
# Of these a network keeps weights after three steps.
STEPPED = ("grid_projection.", "final.", "norm.", "middle.attn.", "middle.res2.conv2.bias", "down.0.res.norm1.", "up.0.res.shortcut.")
TWISTED = [0, 5, 17]


def write_voxmol() -> None:
    for name, (seed, atoms, config) in VOXMOL.items():
        draws, ours = Draws(seed), voxmol_quantities.read_config(config)
        model = VoxMol(ours).double()
        perturb(model, draws, lambda name, value: 0.0 if value.dim() > 1 else 0.25 if "norm" in name else 0.05)
        with torch.no_grad():
            for parameter in (p for n, p in model.named_parameters() if n.endswith("projection.weight") and "attn" in n):
                parameter *= 3
        given = stored_weights(model) | noisy_grids(draws, atoms, ours)
        paths = {path for path, _ in model.named_modules() if is_noted(path)} | voxmol_quantities.DERIVED_STATES
        found = voxmol_quantities.quantities(ours, given, paths).items()
        found = {key: rounded(key, value) for key, value in found if is_kept(key, name)}
        parameters = sum(p.numel() for p in model.parameters())
        report = {"name": name, **config, "seed": seed, "n_params": parameters, "optimiser": voxmol_quantities.RECIPE}
        Fixture(name, report, given | found).write(COMMITTED / "voxmol")
    write_densities(Draws(33))


def noisy_grids(draws: Draws, atoms: list[int], config) -> dict[str, Tensor]:
    """Random atoms in the middle of the box, and noise of 0.9."""
    side, longest = config.grid, max(atoms)
    coordinates = torch.full((len(atoms), longest, 3), float(PADDING), dtype=torch.float64)
    channels = torch.full((len(atoms), longest), PADDING)
    for row, count in enumerate(atoms):
        coordinates[row, :count] = single((draws.uniform(count, 3) - 0.5) * 0.6 * side * RESOLUTION_A)
        channels[row, :count] = draws.choice(list(range(config.elements)), count)
    target = torch.stack([voxelise(x, c, config.elements, side) for x, c in zip(coordinates, channels)]).float()
    noise, rotations = draws.normal(*target.shape).float(), cube_rotations()
    return {
        "in.coords": coordinates.float(),
        "in.atoms_channel": channels.int(),
        "in.target": target,
        "in.noisy": target + 0.9 * noise,
        "in.rotations": rotations,
        "in.setA_idx": torch.tensor(sixteen_of_two_axes(rotations)).int(),
        "in.setB_idx": torch.tensor([k for k, r in enumerate(rotations) if r.trace() != 0]).int(),
        "in.twisted_idx": torch.tensor(TWISTED).int(),
    }


def sixteen_of_two_axes(rotations: Tensor) -> list[int]:
    """R_x(a) R_z(b) for all quarter turns, a outer."""
    quarter_x = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    quarter_z = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    power = torch.linalg.matrix_power
    products = [power(quarter_x, a) @ power(quarter_z, b) for a in range(4) for b in range(4)]
    return [int((rotations - product).abs().sum((1, 2)).argmin()) for product in products]


def is_noted(path: str) -> bool:
    """Stages, what attention adds to one, and the inner modules of the first residual, of the middle's and of its attention."""
    deep = path.startswith(("down.0.res.", "middle.res1.", "middle.attn."))
    inner = deep and path.rsplit(".", 1)[-1] in ("norm1", "conv1", "norm2", "conv2", "projection", "output")
    stage = path.count(".") == 1 and path.startswith(("down.", "up.", "middle."))
    return path in ("grid_projection", "middle", "norm") or stage or path.endswith(".attn") or inner


def is_kept(name: str, fixture: str) -> bool:
    """Of the second network no dense Hessians but one, and of both only some weights after three steps."""
    if fixture == "own_b" and name in ("out.hess_L", "out.hess_mean"):
        return False
    parts = name.split(".", 2)
    stepped = parts[1] in ("after3", "after3_ema") and parts[2] != "losses"
    return not stepped or parts[2].startswith(STEPPED)


def rounded(name: str, value: Tensor) -> Tensor:
    """In f32 what would fill the file: states, gradients, twisted predictions, all Hessians but one."""
    large = name.startswith(("mid.", "grad.", "out.twisted", "out.hess_L", "out.hess_equiv"))
    return value.float() if large else value


def write_densities(draws: Draws) -> None:
    """Densities of scattered atoms, some of them near or beyond the faces of the box, some on top of each other."""
    cases = {"g16_mol": (16, 4, [8, 5]), "g16_probe": (16, 2, [1, 6]), "g32_mol": (32, 2, [12]), "g64_mol": (64, 8, [30, 41])}
    given = {"rot.matrices": cube_rotations()} | molecule_to_place(draws)
    for name, (side, elements, atoms) in cases.items():
        box = (1.2 if name == "g16_probe" else 0.7) * side * RESOLUTION_A
        coordinates = torch.full((len(atoms), max(atoms), 3), float(PADDING), dtype=torch.float64)
        channels = torch.full((len(atoms), max(atoms)), PADDING)
        for row, count in enumerate(atoms):
            coordinates[row, :count] = single((draws.uniform(count, 3) - 0.5) * box)
            channels[row, :count] = draws.choice(list(range(elements)), count)
        if name == "g16_probe":
            # A lone atom on the centre of a voxel: its density is 1 there, of which a logarithm would be infinite.
            coordinates[0, 0] = 1.125 * RESOLUTION_A
        given |= {f"{name}.in.coords": coordinates.float(), f"{name}.in.atoms_channel": channels.int()}
    filled = probes(draws, given["g64_mol.in.coords"], given["g64_mol.in.atoms_channel"])
    given["g64_mol.out.probe_flat_index"] = filled
    shapes = {name: (side, elements) for name, (side, elements, _) in cases.items()}
    found = voxmol_quantities.density_quantities(given, shapes)
    found = {name: value.float() if name.endswith((".grid", ".probe_value")) else value for name, value in found.items()}
    Fixture("voxelizer", {"source": "voxeliser.py"}, given | found).write(COMMITTED / "voxmol")


def molecule_to_place(draws: Draws) -> dict[str, Tensor]:
    coordinates, channels = torch.full((7, 3), float(PADDING), dtype=torch.float64), torch.full((7,), PADDING)
    coordinates[:6], channels[:6] = single(cluster(draws, 6) + 2.0), draws.choice([0, 1, 2], 6)
    return {
        "augment.in.coords": coordinates.float(),
        "augment.in.atoms_channel": channels.int(),
        "augment.in.angles_xyz": 2 * pi * draws.uniform(3),
        "augment.in.uniform_shift": draws.uniform(1, 3).float(),
    }


def probes(draws: Draws, coordinates: Tensor, channels: Tensor) -> Tensor:
    """Voxels with something in them, and some of all."""
    grid = torch.stack([voxelise(x, c, 8, 64) for x, c in zip(coordinates, channels)]).flatten()
    filled = (grid > 1e-4).nonzero().flatten()
    listed = [filled[torch.randperm(len(filled), generator=draws.generator)[:500]]]
    return torch.cat([*listed, torch.randint(len(grid), (100,), generator=draws.generator)])


WRITERS = {"escaip": write_escaip, "proteina": write_proteina, "voxmol": write_voxmol}

if __name__ == "__main__":
    torch.set_num_threads(1)  # sums in one order
    for model in sys.argv[1:] or WRITERS:
        WRITERS[model]()
