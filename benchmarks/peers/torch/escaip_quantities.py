"""All that a parity fixture of EScAIP holds, computed by escaip.py in f64 from its weights and inputs.

write_fixtures.py writes it, test_escaip_parity.py compares it with the fixtures. Names are explained in tests/parity/README.md.
"""

from typing import NamedTuple

import torch
from escaip import Config, Escaip, Graph, Trainer, force_mse, reference_loss
from torch import Tensor

# Two recipes, each with every part of it at work: warm-up, a rate that falls, clipping.
_COMMON = {"lr_initial": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "warmup_steps": 1}
_COMMON |= {"warmup_factor": 0.2, "total_steps": 20, "lr_min_factor": 0.5, "ema_decay": 0.999}
RECIPES = {
    "after3": {"loss": "mse", "clip_grad_norm": 0.05, **_COMMON},
    "after3ref": {"loss": "composite", "clip_grad_norm": 10.0, **_COMMON},
}
STEPS = 3


def read_config(values: dict) -> Config:
    return Config(
        hidden=values["hidden_size"],
        heads=values["atten_num_heads"],
        layers=values["num_layers"],
        neighbors=values["max_neighbors"],
        cutoff_a=values["max_radius"],
        elements=values["max_num_elements"],
        atom_embedding=values["atom_embedding_size"],
        radial_functions=values["edge_distance_expansion_size"],
        radial_embedding=values["edge_distance_embedding_size"],
        boo_orders=values["node_direction_expansion_size"],
        boo_embedding=values["node_direction_embedding_size"],
        ffn_multiplier=values["ffn_hidden_layer_multiplier"],
        readout_multiplier=values["readout_hidden_layer_multiplier"],
        output_multiplier=values["output_hidden_layer_multiplier"],
    )


class Case(NamedTuple):
    """A network and a batch in f64."""

    config: Config
    given: dict[str, Tensor]  # `w.` weights, `in.` inputs, `sing.` the lonely atom
    model: Escaip
    graph: Graph

    @classmethod
    def of(cls, config: Config, given: dict[str, Tensor]) -> "Case":
        model = Escaip(config).double().eval()
        weights = {name[2:]: value.double() for name, value in given.items() if name.startswith("w.")}
        model.load_state_dict(weights, strict=True)
        case = cls(config, given, model, None)
        return case._replace(graph=case.graph_at(given["in.positions"]))

    def graph_at(self, positions: Tensor, neighbors=None) -> Graph:
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), self.given["in.natoms"].cumsum(0)])
        return self.model.graph(positions, self.given["in.atomic_numbers"], offsets, neighbors)

    def masked(self, edge: Tensor) -> Tensor:
        """Edge states are arbitrary in empty slots; they are stored as zero."""
        return edge.masked_fill(~self.graph.mask[..., None], 0.0)

    def reference_loss(self) -> Tensor:
        return reference_loss(self.model(self.graph), self.given["in.target"], self.given["in.target_energy"])

    def force_loss(self) -> Tensor:
        return force_mse(self.model(self.graph).forces, self.given["in.target"])


def quantities(config: Config, given: dict[str, Tensor], recipes: dict = RECIPES) -> tuple[dict[str, Tensor], dict]:
    """Every result by its name in a fixture, and what its JSON says beside the configuration."""
    case, report = Case.of(config, given), {}
    found = graph_quantities(case.graph, "mid.graph.") | states(case)
    prediction = case.model(case.graph)
    found |= {"out.forces": prediction.forces, "out.energy": prediction.energy}
    found |= decomposition(case, report) | loss_gradients(case, report) | lonely_atom(case)
    for name, recipe in recipes.items():
        found |= training(Case.of(config, given), name, recipe, report)
    return found, report


# --- graph and states ------------------------------------------------------------------------------------------------


def graph_quantities(graph: Graph, prefix: str) -> dict[str, Tensor]:
    return {
        f"{prefix}neighbor_list": torch.where(graph.mask, graph.senders, -1),
        f"{prefix}neighbor_mask": graph.mask.to(torch.uint8),
        f"{prefix}edge_direction": graph.direction,
        f"{prefix}edge_distance_expansion": graph.radial,
        f"{prefix}node_direction_expansion": graph.boo,
        f"{prefix}angle_cosine": graph.angle_cosine,
    }


def state_names(layers: int) -> dict[str, str]:
    """Module path -> fixture name. A name that ends in "." stands for a (node, edge) pair."""
    names = {
        "input_block.input_layer.edge_distance_embedding": "mid.input.edge_distance_embedding",
        "input_block.input_layer.edge_linear": "mid.input.edge_linear",
        "input_block.input_layer": "mid.input.layer.",
        "input_block": "mid.input.block.",
        "output_projection": "mid.projection.",
    }
    for block in range(layers):
        module = f"transformer_blocks.{block}.graph_attention"
        names |= {module: f"mid.block{block}.attention.", f"transformer_blocks.{block}": f"mid.block{block}.out."}
        names |= {f"{module}.{part}_linear": f"mid.block{block}.{part}_linear" for part in ("edge", "node")}
        names[f"{module}.message_linear"] = f"mid.block{block}.message"
    return names | {f"readout_layers.{t}": f"mid.readout{t}." for t in range(layers + 1)}


def states(case: Case) -> dict[str, Tensor]:
    """What the modules of one forward pass give, by hooks."""
    found: dict[str, Tensor] = {}

    def hook(name: str):
        def record(_module, _inputs, output):
            if name.endswith("."):
                found[name + "node"], found[name + "edge"] = output
            else:
                found[name] = output

        return record

    modules = state_names(case.config.layers).items()
    handles = [case.model.backbone.get_submodule(path).register_forward_hook(hook(name)) for path, name in modules]
    final = case.model.output_heads["forces"].force_direction_layer.final_output
    handles.append(final.register_forward_hook(lambda _module, inputs, _output: found.update({"mid.head.h": inputs[0]})))
    case.model(case.graph)
    for handle in handles:
        handle.remove()
    return {name: case.masked(state) if state.dim() == 3 else state for name, state in found.items()}


# --- losses ----------------------------------------------------------------------------------------------------------


def twisted_by_full_passes(case: Case) -> Tensor:
    """T^-1 f(T x) [R, N, 3], the geometry recomputed from the rotated positions, the neighbours kept."""
    kept, predictions = (case.graph.senders, case.graph.mask), []
    for rotation in case.given["in.rotations"]:
        graph = case.graph_at(case.given["in.positions"].double() @ rotation.T, kept)
        predictions.append(case.model(graph).forces @ rotation)
    return torch.stack(predictions)


def gradient(loss: Tensor, parameters: list) -> list:
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


def norm_of(gradients: list) -> Tensor:
    return torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()


def decomposition(case: Case, report: dict) -> dict[str, Tensor]:
    """Plug-in and exact decompositions with their gradients, from one backbone pass.

    `report` gets the names and shapes of the head's parameters, in the order in which its gradients are flattened.
    """
    node, edge = case.model.backbone(case.graph)
    magnitude, direction = case.model.output_heads["forces"].coefficients(node, edge)
    direction = case.masked(direction)
    matrix = direction.mT @ case.graph.direction
    found = {"mid.head.magnitude": magnitude, "mid.head.a": direction, "mid.head.C": matrix}
    with torch.no_grad():
        found["out.twisted"] = twisted_by_full_passes(case)
    rotations, target = case.given["in.rotations"], case.given["in.target"]
    twisted = magnitude * torch.einsum("nak,rak,ral->rnl", matrix, rotations, rotations)
    assert torch.allclose(twisted, found["out.twisted"], rtol=1e-10, atol=1e-10), "one pass and ten passes differ"
    squares = plug_in(twisted, target)
    exact_mean, exact = exact_averages(magnitude, matrix, target)
    found |= {"out.twirled": twisted.mean(0), "out.exact.mu": exact_mean}
    parameters = [p for n, p in case.model.named_parameters() if ".energy.energy_layer" not in n]
    prefix = "output_heads.forces.force_direction_layer."
    head = {n: p for n, p in case.model.named_parameters() if n.startswith(prefix)}
    report["hessian_params"] = [{"name": name, "shape": list(p.shape)} for name, p in head.items()]
    for part, square in squares.items():
        molecules = square.split(case.given["in.natoms"].tolist())
        loss = square.mean()
        found |= {
            f"out.L{part}": loss,
            f"out.permol_L{part}": torch.stack([m.mean() for m in molecules]).mean(),
            f"out.gradnorm_L{part}": norm_of(gradient(loss, parameters)),
            f"out.grad_L{part}.head": torch.cat([g.flatten() for g in gradient(loss, list(head.values()))]),
            f"out.exact.L{part}": exact[part],
            f"out.exact.gradnorm_L{part}": norm_of(gradient(exact[part], parameters)),
        }
    return found


def plug_in(twisted: Tensor, target: Tensor) -> dict[str, Tensor]:
    """The squares [N, 3] whose means are L, L_mean and L_equiv."""
    twirled = twisted.mean(0)
    return {
        "": (twisted - target).square().mean(0),
        "_mean": (twirled - target).square(),
        "_equiv": (twisted - twirled).square().mean(0),
    }


def exact_averages(magnitude: Tensor, matrix: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Over all rotations, in closed form: the twirled prediction, and L, L_mean, L_equiv."""
    mean = magnitude / 3 * matrix.sum(1)
    centred = matrix - matrix.mean(1, keepdim=True)
    losses = {"_mean": force_mse(mean, target), "_equiv": (magnitude[..., None] * centred).square().sum() / (9 * len(matrix))}
    return mean, {"": losses["_mean"] + losses["_equiv"], **losses}


def loss_gradients(case: Case, report: dict) -> dict[str, Tensor]:
    """`report` gets the names of parameters that a loss does not reach."""
    found, names = {}, dict(case.model.named_parameters())
    for loss, prefix, suffix, key in [
        (case.force_loss(), "grad.", "", "no_grad_under_force_mse"),
        (case.reference_loss(), "gradref.", "_ref", "no_grad_under_ref_loss"),
    ]:
        gradients = dict(zip(names, gradient(loss, list(names.values()))))
        found |= {f"out.loss{suffix}": loss, f"out.gradnorm_loss{suffix}": norm_of(list(gradients.values()))}
        found |= {prefix + name: value for name, value in gradients.items() if value is not None}
        report[key] = [name for name, value in gradients.items() if value is None]
    return found


def lonely_atom(case: Case) -> dict[str, Tensor]:
    positions, numbers = case.given["sing.positions"], case.given["sing.atomic_numbers"]
    graph = case.model.graph(positions, numbers, torch.tensor([0, len(positions)]))
    prediction, described = case.model(graph), graph_quantities(graph, "sing.")
    found = {name: described[f"sing.{name}"] for name in ("neighbor_list", "neighbor_mask", "edge_direction")}
    return {f"sing.{name}": value for name, value in found.items()} | {
        "sing.forces": prediction.forces,
        "sing.energy": prediction.energy,
    }


# --- training --------------------------------------------------------------------------------------------------------


def training(case: Case, name: str, recipe: dict, report: dict) -> dict[str, Tensor]:
    """Three steps on one batch; `report[name]` gets the recipe and what each step said."""
    schedule = recipe["warmup_steps"], recipe["total_steps"], recipe["lr_initial"], recipe["clip_grad_norm"]
    trainer = Trainer(case.model, *schedule, recipe["ema_decay"], betas=tuple(recipe["betas"]), eps=recipe["eps"])
    losses, steps = [], []
    for step in range(STEPS):
        rate = trainer.schedule.get_last_lr()[0]
        loss = case.force_loss() if recipe["loss"] == "mse" else case.reference_loss()
        losses.append(loss.detach())
        norm = trainer.update(loss)
        steps.append({"step": step, "loss": loss.item(), "lr": rate, "grad_norm_before_clip": norm})
    report[name] = {**recipe, "steps": steps}
    plain = next(group for group in trainer.optimizer.param_groups if group["weight_decay"] == 0.0)["params"]
    names = [parameter for parameter, _ in case.model.named_parameters()]
    report["no_weight_decay_names"] = sorted(n for n, p in zip(names, trainer.parameters) if any(p is q for q in plain))
    weights = dict(zip(names, trainer.parameters)) | {f"ema.{n}": value for n, value in zip(names, trainer.ema)}
    found = {f"out.{name}.{parameter}": value.detach().clone() for parameter, value in weights.items()}
    return found | {f"out.{name}.losses": torch.stack(losses)}
