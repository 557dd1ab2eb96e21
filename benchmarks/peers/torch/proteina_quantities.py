"""All that a parity fixture of Proteina holds, computed by proteina.py in f64 from its weights and inputs.

write_fixtures.py writes it, test_proteina_parity.py compares it with the fixtures. Names are explained in tests/parity/README.md.
"""

from typing import NamedTuple

import proteina
import torch
import torch.nn.functional as F
from proteina import Batch, Config, Proteina, Trainer, velocity_mse
from torch import Tensor

STEPS = 3
HEAD = ("coors_3d_decoder.0.weight", "coors_3d_decoder.0.bias", "coors_3d_decoder.1.weight")


def read_config(values: dict) -> Config:
    names = {"res_seq_pdb_idx": "index", "chain_break_per_res": "chain_break", "x_sc": "self_conditioning"}
    return Config(
        token_width=values["token_dim"],
        layers=values["nlayers"],
        heads=values["nheads"],
        conditioning_width=values["dim_cond"],
        pair_width=values["pair_repr_dim"],
        triangle_width=values.get("tri_mult_c", 0),
        time_width=values["t_emb_dim"],
        index_width=values["idx_emb_dim"],
        fold_width=values["fold_emb_dim"],
        position_bins=values["xt_pair_dist_dim"],
        self_conditioning_bins=values["x_sc_pair_dist_dim"],
        sequence_separation_bins=values["seq_sep_dim"],
        registers=values["num_registers"],
        distogram_bins=values["num_buckets_predict_pair"],
        update_every=values["update_pair_repr_every_n"] if values["update_pair_repr"] else None,
        position_range_nm=(values["xt_pair_dist_min"], values["xt_pair_dist_max"]),
        self_conditioning_range_nm=(values["x_sc_pair_dist_min"], values["x_sc_pair_dist_max"]),
        token_features=tuple(names[feature] for feature in values["feats_init_seq"]),
    )


class Case(NamedTuple):
    """A network and a batch in f64."""

    config: Config
    given: dict[str, Tensor]  # `w.` weights, `in.` inputs
    model: Proteina
    batch: Batch
    target: Tensor

    @classmethod
    def of(cls, config: Config, given: dict[str, Tensor], savings: bool = False) -> "Case":
        model = Proteina(config, savings).double()
        weights = {name[2:]: value.double() for name, value in given.items() if name.startswith("w.")}
        model.load_state_dict(weights, strict=True)
        return cls(config, given, model, Batch(*(given[f"in.{name}"] for name in Batch._fields)), given["in.target"])

    def training_loss(self, x_sc: Tensor | None = None) -> Tensor:
        return proteina.training_loss(self.model(self.batch, x_sc), self.batch, self.target, self.config)


def quantities(config: Config, given: dict[str, Tensor], names: list[str], savings: bool = False) -> dict[str, Tensor]:
    """Every result by its name in a fixture; of those that are kept for a selection of parameters only, those of `names`."""
    case = Case.of(config, given, savings)
    found = states(case) | outputs(case) | loss_gradients(case, names) | decomposition(case) | {"in.x_sc": first_guess(case)}
    found |= flow_times(case) | hessians(case) | training(Case.of(config, given, savings), names)
    return found


def control_quantities(config: Config, given: dict[str, Tensor], savings: bool = False) -> dict[str, Tensor]:
    """Of weights in the exactly equivariant family: the equivariance error is rounding noise."""
    case = Case.of(config, given, savings)
    with torch.no_grad():
        twisted = twist(case, case.batch)
        losses = decompose(twisted, case.target, case.batch.mask)
    return {"out.coors_pred": twisted.mean(0), "out.L": losses["L"], "out.L_equiv": losses["L_equiv"]}


# --- intermediate states ---------------------------------------------------------------------------------------------


def state_names(config: Config) -> dict[str, str]:
    """Module path -> fixture name of its output."""
    names = {
        "cond_factory.linear_out": "cond_linear",
        "transition_c_1": "cond_after_t1",
        "transition_c_2": "cond",
        "linear_3d_embed": "coors_embed",
        "init_repr_factory": "init_repr",
        "pair_repr_builder.init_repr_factory": "pair_init_repr",
        "pair_repr_builder.cond_factory": "pair_cond",
        "pair_repr_builder": "pair_repr",
        "transformer_layers.0.mhba.adaln": "l0.attn_adaln",
        "transformer_layers.0.mhba.mha": "l0.attn_out",
        "transformer_layers.0.mhba": "l0.attn_scaled",
        "transformer_layers.0.transition.adaln": "l0.tr_adaln",
        "transformer_layers.0.transition.transition": "l0.tr_out",
        "transformer_layers.0.transition": "l0.tr_scaled",
        "coors_3d_decoder.0": "head_ln",
    }
    names |= {f"transformer_layers.{layer}": f"seq_after_layer{layer}" for layer in range(config.layers)}
    if config.update_layers:
        parts = {"tri_mult_out": "tri_out", "tri_mult_in": "tri_in", "transition_out": "transition"}
        names |= {f"pair_update_layers.0.{module}": f"p0.{name}" for module, name in parts.items()}
    return names | {f"pair_update_layers.{layer}": f"pair_after_update{layer}" for layer in config.update_layers}


def masked(state: Tensor, mask: Tensor) -> Tensor:
    """Zero where padded; tokens and pairs, with or without registers in front."""
    mask = F.pad(mask, (state.shape[1] - mask.shape[1], 0), value=1.0)
    return state * (proteina.outer(mask) if state.dim() == 4 else mask)[..., None]


def repeated(state: Tensor, residues: int) -> Tensor:
    """What `savings` computes once for a protein, for every residue or pair."""
    return state.expand(-1, *(residues if size == 1 else -1 for size in state.shape[1:-1]), -1)


def states(case: Case) -> dict[str, Tensor]:
    """What the modules of one forward pass give, by hooks, zero where padded; and the features."""
    found, (batch, config) = {}, (case.batch, case.config)
    handles = [
        case.model.get_submodule(path).register_forward_hook(lambda _module, _inputs, output, name=name: found.update({name: output}))
        for path, name in state_names(config).items()
    ]
    case.model(batch)
    for handle in handles:
        handle.remove()
    found = {name: repeated(state, batch.mask.shape[1]) for name, state in found.items()}
    found["idx_emb"] = proteina.index_embedding(batch.residue_pdb_idx, config.index_width)
    found = {f"mid.{name}": masked(state, batch.mask) for name, state in found.items()}
    separation, _, position = case.model.pair_repr_builder.init_repr_factory.bins(batch, None)
    bins = torch.stack([separation, position], -1) * proteina.outer(batch.mask)[..., None].long()
    return found | {"mid.time_emb": proteina.time_embedding(batch.t, config.time_width), "mid.pair_bins": bins}


# --- outputs, losses, gradients --------------------------------------------------------------------------------------


def first_guess(case: Case) -> Tensor:
    """The clean sample that the network predicts without self-conditioning."""
    with torch.no_grad():
        return proteina.clean_sample(case.batch.x_t, case.batch.t, case.model(case.batch).velocity)


def outputs(case: Case) -> dict[str, Tensor]:
    found, (batch, target) = {}, (case.batch, case.target)
    for prefix, x_sc in {"out.": None, "out.sc.": case.given.get("in.x_sc", first_guess(case))}.items():
        velocity = case.model(batch, x_sc).velocity
        found |= {
            prefix + "coors_pred": velocity,
            prefix + "loss": velocity_mse(velocity, target, batch.mask),
            prefix + "loss_train": case.training_loss(x_sc),
        }
    velocity, logits = case.model(batch)
    x1_pred = proteina.clean_sample(batch.x_t, batch.t, velocity)
    centre = (x1_pred * batch.mask[..., None]).sum(1, keepdim=True) / batch.mask.sum(1)[:, None, None]
    to_centred = (x1_pred - centre - batch.x_t) / (1 - batch.t)[:, None, None]
    found |= {
        "out.x1_pred": x1_pred,
        "out.v_centred": masked(to_centred, batch.mask),
        "out.loss_fm_per_protein": proteina.flow_matching_loss(velocity, target, batch.t, batch.mask),
        "out.loss_aux_per_protein": torch.zeros_like(batch.t),
    }
    if logits is not None:
        x_1, limit = proteina.clean_sample(batch.x_t, batch.t, target), case.config.distogram_max_nm
        found["out.pair_pred"] = logits
        found["out.loss_aux_per_protein"] = proteina.distogram_loss(logits, x_1, batch.t, batch.mask, limit)
    return found


def gradients(model: Proteina, loss: Tensor) -> dict[str, Tensor]:
    """Zeros where the loss does not reach."""
    names, parameters = zip(*model.named_parameters())
    values = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if v is None else v for n, p, v in zip(names, parameters, values)}


def norm_of(gradient: dict[str, Tensor]) -> Tensor:
    return torch.stack([value.square().sum() for value in gradient.values()]).sum().sqrt()


def loss_gradients(case: Case, names: list[str]) -> dict[str, Tensor]:
    velocity = case.model(case.batch).velocity
    plain = gradients(case.model, velocity_mse(velocity, case.target, case.batch.mask))
    training = gradients(case.model, case.training_loss())
    found = {"out.gradnorm_loss": norm_of(plain), "out.train_gradnorm": norm_of(training)}
    found |= {f"grad.{name}": value for name, value in plain.items()}
    return found | {f"out.train_grad.{name}": training[name] for name in names}


# --- the equivariance block ------------------------------------------------------------------------------------------


def predict_once(model: Proteina, batch: Batch) -> Tensor:
    return model(batch).velocity


def predict_twice(model: Proteina, batch: Batch) -> Tensor:
    """The velocity with the network's own, detached, first guess as self-conditioning."""
    with torch.no_grad():
        x_sc = proteina.clean_sample(batch.x_t, batch.t, model(batch).velocity)
    return model(batch, x_sc).velocity


def rotated(case: Case, batch: Batch) -> list[Batch]:
    return [batch._replace(x_t=batch.x_t @ rotation.T) for rotation in case.given["in.rotations"]]


def twist(case: Case, batch: Batch, predict=predict_once) -> Tensor:
    """f(x R^T) R for every rotation, [K, b, n, 3]."""
    pairs = zip(rotated(case, batch), case.given["in.rotations"])
    return torch.stack([predict(case.model, one) @ rotation for one, rotation in pairs])


def decompose(twisted: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """L, L_mean and L_equiv (plug-in), each protein counted the same."""
    twirled = twisted.mean(0)
    return {
        "L": proteina.per_protein((twisted - target).square(), mask).mean(),
        "L_mean": velocity_mse(twirled, target, mask),
        "L_equiv": proteina.per_protein((twisted - twirled).square(), mask).mean(),
    }


def decomposition(case: Case) -> dict[str, Tensor]:
    found = {}
    for prefix, predict in {"out.": predict_once, "out.sc.": predict_twice}.items():
        twisted = twist(case, case.batch, predict)
        found |= {prefix + "twisted": twisted, prefix + "twirled": twisted.mean(0)}
        for name, loss in decompose(twisted, case.target, case.batch.mask).items():
            found[prefix + name] = loss
            found[f"{prefix}gradnorm_{name.removeprefix('L_')}"] = norm_of(gradients(case.model, loss))
    return found


@torch.no_grad()
def flow_times(case: Case) -> dict[str, Tensor]:
    """L, L_mean, L_equiv with all proteins at one flow time, for each of `in.tgrid`."""
    rows = []
    for t in case.given["in.tgrid"]:
        x_t = (1 - t) * case.given["in.x0"] + t * case.given["in.x1"]
        batch = case.batch._replace(x_t=x_t, t=t.expand(len(x_t)))
        rows.append(torch.stack(list(decompose(twist(case, batch), case.target, batch.mask).values())))
    return {"out.tgrid_L_Lmean_Lequiv": torch.stack(rows)}


def hessians(case: Case) -> dict[str, Tensor]:
    """Dense ones of L, L_mean, L_equiv over the head's weight (`hess_`) and over its norm and weight (`hess2_`)."""
    read_by_head = []
    handle = case.model.coors_3d_decoder.register_forward_pre_hook(lambda _module, inputs: read_by_head.append(inputs[0].detach()))
    for batch in rotated(case, case.batch):
        case.model(batch)
    handle.remove()
    normed = F.layer_norm(torch.stack(read_by_head), read_by_head[0].shape[-1:])
    at = [case.model.get_parameter(name).detach() for name in HEAD]
    width, found = len(at[0]), {}

    def loss_at(name: str, flat: Tensor) -> Tensor:
        scale, shift, weight = flat[:width], flat[width : 2 * width], flat[2 * width :].view(3, width)
        velocity = (normed * scale + shift) @ weight.T * case.batch.mask[..., None]
        return decompose(velocity @ case.given["in.rotations"][:, None], case.target, case.batch.mask)[name]

    for name in ("L", "L_mean", "L_equiv"):
        flat = torch.cat([value.flatten() for value in at])
        whole = torch.autograd.functional.hessian(lambda x, name=name: loss_at(name, x), flat)
        for prefix, hessian in {"hess2": whole, "hess": whole[2 * width :, 2 * width :]}.items():
            key = f"out.{prefix}_{name.removeprefix('L_')}"
            found |= {key: hessian, f"{key}_eigvals": torch.linalg.eigvalsh(hessian)}
    return found


# --- training --------------------------------------------------------------------------------------------------------


def training(case: Case, names: list[str]) -> dict[str, Tensor]:
    """Three steps on one batch with the recipe of proteina.py: losses, norms, weights and their moving average."""
    trainer = Trainer(case.model)
    losses, norms = [], []
    for _ in range(STEPS):
        losses.append(case.training_loss())
        norms.append(trainer.update(losses[-1]))
    losses.append(case.training_loss())
    found = {"out.opt_losses": torch.stack(losses), "out.opt_gradnorm_before_clip": torch.tensor(norms, dtype=torch.float64)}
    of_parameter = [name for name, _ in case.model.named_parameters()]
    for prefix, values in {"out.after3.": trainer.parameters, "out.ema3.": trainer.ema}.items():
        found |= {prefix + name: value for name, value in zip(of_parameter, values) if name in names}
    return found
