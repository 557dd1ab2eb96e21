"""All that a parity fixture of VoxMol holds, computed by voxmol.py and voxeliser.py in f64 from its weights and inputs.

write_fixtures.py writes it, test_voxmol_parity.py compares it with the fixtures. Names are explained in tests/parity/README.md.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from voxeliser import gather_table, group_tables, place, rotate, voxelise
from voxmol import Config, Trainer, VoxMol, squared_error

# The recipe of the public configuration.
RECIPE = {"lr": 2e-5, "weight_decay": 0.01, "betas": [0.99, 0.999], "eps": 0.0, "steps": 3, "loss": "sum", "ema_decay": 0.999}
# Their input is not what their name says, or what is noted lies elsewhere.
DERIVED_STATES = {"act", "enc_out", "bottleneck"}


def read_config(values: dict) -> Config:
    return Config(
        elements=values["n_elements"],
        width=values["n_channels"],
        multipliers=tuple(values["ch_mults"]),
        attention=tuple(values["is_attn"]),
        blocks=values["n_blocks"],
        groups=values["n_groups"],
        dropout=values["dropout"],
        grid=values["grid_dim"],
    )


class Case(NamedTuple):
    """A network and a batch in f64."""

    config: Config
    given: dict[str, Tensor]  # `w.` weights, `in.` inputs
    model: VoxMol
    noisy: Tensor
    target: Tensor

    @classmethod
    def of(cls, config: Config, given: dict[str, Tensor]) -> "Case":
        model = VoxMol(config).double()
        weights = {name[2:]: value for name, value in given.items() if name.startswith("w.")}
        model.load_state_dict(weights, strict=True)
        return cls(config, given, model, given["in.noisy"].double(), given["in.target"].double())


def quantities(config: Config, given: dict[str, Tensor], paths: set[str], optimiser="foreach", recipe=RECIPE) -> dict[str, Tensor]:
    """Every result by its name in a fixture; of the outputs of modules those of `paths`."""
    case = Case.of(config, given)
    found = states(case, paths) | loss_gradients(case) | decomposition(case) | hessians(case) | latents(case)
    return found | training(Case.of(config, given), optimiser, recipe)


# --- states and losses -----------------------------------------------------------------------------------------------


def states(case: Case, paths: set[str]) -> dict[str, Tensor]:
    model, found = case.model, {}
    handles = [
        model.get_submodule(path).register_forward_hook(lambda _module, _inputs, output, path=path: found.update({path: output}))
        for path in (paths - DERIVED_STATES) | {"norm", "middle", last_of_encoder(model)}
    ]
    prediction = model(case.noisy)
    for handle in handles:
        handle.remove()
    found |= {"act": F.silu(found["norm"]), "enc_out": found[last_of_encoder(model)], "bottleneck": found["middle"]}
    return {f"mid.{path}": found[path] for path in paths} | {"out.pred": prediction}


def last_of_encoder(model: VoxMol) -> str:
    return f"down.{len(model.down) - 1}"


def gradients(model: VoxMol, loss: Tensor) -> dict[str, Tensor]:
    """Zeros where the loss does not reach."""
    names, parameters = zip(*model.named_parameters())
    values = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if v is None else v for n, p, v in zip(names, parameters, values)}


def norm_of(gradient: dict[str, Tensor]) -> Tensor:
    return torch.stack([value.square().sum() for value in gradient.values()]).sum().sqrt()


def loss_gradients(case: Case) -> dict[str, Tensor]:
    """Of the mean over components; of the sum, which training uses, the value."""
    total = squared_error(case.model(case.noisy), case.target)
    loss = total / case.target.numel()
    gradient = gradients(case.model, loss)
    return {"out.loss_sum": total, "out.loss": loss} | {f"grad.{name}": value for name, value in gradient.items()}


# --- rotations -------------------------------------------------------------------------------------------------------


def decompose(twisted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """L, L_mean and L_equiv over a list of rotations [K, B, C, G, G, G]."""
    twirled = twisted.mean(0)
    return {
        "L": (twisted - target).square().mean(),
        "L_mean": (twirled - target).square().mean(),
        "L_equiv": (twisted - twirled).square().mean(),
    }


def decomposition(case: Case) -> dict[str, Tensor]:
    rotations, model, given = case.given["in.rotations"], case.model, case.given
    twisted = torch.stack([rotate(model(rotate(case.noisy, rotation)), rotation.T) for rotation in rotations])
    losses = decompose(twisted, case.target)
    found = {
        "in.rot_gather_g4": torch.stack([gather_table(rotation, 4) for rotation in rotations]).int(),
        "out.twisted": twisted[given["in.twisted_idx"].long()],
        "out.twirled": twisted.mean(0),
        "out.percent": 100 * losses["L_equiv"] / losses["L"],
        "out.L_equiv_per_sample": (twisted - twisted.mean(0)).square().mean((0, 2, 3, 4, 5)),
    }
    for name, loss in losses.items():
        gradient, short = gradients(model, loss), name.removeprefix("L_")
        head = torch.cat([gradient[part].flatten() for part in ("final.weight", "final.bias")])
        found |= {f"out.{name}": loss, f"out.gradnorm_{short}": norm_of(gradient), f"out.headgrad_{short}": head}
    for which in ("setA", "setB"):
        listed = twisted[given[f"in.{which}_idx"].long()]
        found |= {f"out.{which}.{name}": loss for name, loss in decompose(listed, case.target).items()}
    return found


def hessians(case: Case) -> dict[str, Tensor]:
    """Of L, L_mean, L_equiv over weight and bias of the last convolution, in which predictions are linear; and eigenvalues."""
    rotations, model, read_by_head = case.given["in.rotations"], case.model, []
    handle = model.final.register_forward_pre_hook(lambda _module, inputs: read_by_head.append(inputs[0].detach()))
    for rotation in rotations:
        model(rotate(case.noisy, rotation))
    handle.remove()
    shape, found = model.final.weight.shape, {}

    def jacobian(activated: Tensor, rotation: Tensor) -> Tensor:
        """Of one twisted prediction, [components, parameters]: column by column, as it is linear."""
        columns = torch.eye(shape.numel() + shape[0], dtype=torch.float64)
        predicted = [F.conv3d(activated, c[: shape.numel()].view(shape), c[shape.numel() :], padding=1) for c in columns]
        return rotate(torch.stack(predicted), rotation.T).flatten(1).T

    mean, total = 0.0, 0.0
    for activated, rotation in zip(read_by_head, rotations):
        one = jacobian(activated, rotation)
        mean, total = mean + one / len(rotations), total + one.T @ one / len(rotations)
    for name, square in {"L": total, "mean": mean.T @ mean, "equiv": total - mean.T @ mean}.items():
        hessian = 2 / case.target.numel() * square
        found |= {f"out.hess_{name}": hessian, f"out.hesseig_{name}": torch.linalg.eigvalsh(hessian)}
    return found


@torch.no_grad()
def latents(case: Case) -> dict[str, Tensor]:
    def of(noisy: Tensor) -> dict[str, Tensor]:
        encoded = case.model.encode(noisy)[-1]
        return {"enc": encoded, "mid": case.model.middle(encoded)}

    rotations, straight, found = case.given["in.rotations"], of(case.noisy), {}
    turned = [of(rotate(case.noisy, rotation)) for rotation in rotations]
    for name, latent in straight.items():
        of_rotated = torch.stack([one[name] for one in turned])
        moved = torch.stack([rotate(latent, rotation) for rotation in rotations])
        pooled, pooled_of_rotated = latent.mean((2, 3, 4)), of_rotated.mean((3, 4, 5))
        found |= {
            f"out.latent_pool_{name}": pooled,
            f"out.latent_pool_{name}_rot": pooled_of_rotated,
            f"out.cos_pool_{name}": F.cosine_similarity(pooled_of_rotated, pooled[None], dim=-1),
            f"out.cos_spatial_{name}": F.cosine_similarity(of_rotated.flatten(2), moved.flatten(2), dim=-1),
        }
    return found


# --- training --------------------------------------------------------------------------------------------------------


def training(case: Case, optimiser: str, recipe: dict) -> dict[str, Tensor]:
    """Some steps on one batch: losses, weights and their moving average."""
    model = case.model.train()
    trainer = Trainer(model, optimiser, recipe["lr"], tuple(recipe["betas"]), recipe["weight_decay"], recipe["ema_decay"])
    losses = []
    for _ in range(recipe["steps"]):
        losses.append(squared_error(model(case.noisy), case.target))
        trainer.update(losses[-1])
    losses.append(squared_error(model(case.noisy), case.target))
    names, found = [name for name, _ in model.named_parameters()], {"out.after3.losses": torch.stack(losses)}
    for prefix, values in {"out.after3.": trainer.parameters, "out.after3_ema.": trainer.ema}.items():
        found |= {prefix + name: value for name, value in zip(names, values)}
    return found


# --- densities -------------------------------------------------------------------------------------------------------


def density_quantities(given: dict[str, Tensor], cases: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Of `cases`, name -> (side, elements), the densities; of `augment.in.` where a molecule is placed; of `rot.matrices` tables."""
    found = {f"augment.out.{name}": value for name, value in placed(given).items()} | group_tables(given["rot.matrices"])
    for name, (side, elements) in cases.items():
        batch = zip(given[f"{name}.in.coords"], given[f"{name}.in.atoms_channel"])
        grid = torch.stack([voxelise(positions, channels, elements, side) for positions, channels in batch])
        found[f"{name}.out.channel_sum_f64formula"] = grid.sum((2, 3, 4))
        if f"{name}.out.probe_flat_index" in given:
            found[f"{name}.out.probe_value"] = grid.flatten()[given[f"{name}.out.probe_flat_index"]]
        else:
            found[f"{name}.out.grid"] = grid
    return found


def placed(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of padding are those of `augment.in.coords`."""
    positions, atoms = given["augment.in.coords"].double(), given["augment.in.atoms_channel"] < 999
    found = place(positions[atoms], given["augment.in.angles_xyz"], given["augment.in.uniform_shift"])
    whole = {name: positions.clone() for name in found if name != "rotation"}
    for name, value in whole.items():
        value[atoms] = found[name]
    return found | whole
