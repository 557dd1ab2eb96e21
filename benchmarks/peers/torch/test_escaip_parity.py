"""Checks escaip.py against the parity fixtures in f64. Run as a script or with pytest.

EQUIVBENCH_PARITY: directories with NAME.config.json + NAME.safetensors, separated like PATH. Default: parity/escaip under
EQUIVBENCH_SHARED, or under ../shared next to the repository. Without fixtures it prints "skipped: ..." and passes.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from escaip import Config, Escaip, Trainer, force_mse, reference_loss  # noqa: E402

# Largest deviation divided by the largest entry of the fixture tensor. Rounding alone leaves about 1e-13 (deep f64 sums);
# these bounds leave room for another order of summation. AdamW divides by tiny second moments, hence its own bound.
TOLERANCE = {"graph": 1e-12, "states": 1e-11, "outputs": 1e-11, "losses": 1e-11, "gradients": 1e-10, "adamw": 1e-8}


def fixtures() -> list[Path]:
    """The safetensors files of all fixtures; empty when there are none on this machine."""
    repository = Path(__file__).resolve().parents[3]
    shared = Path(os.environ.get("EQUIVBENCH_SHARED", repository.parent / "shared"))
    listed = os.environ.get("EQUIVBENCH_PARITY", str(shared / "parity" / "escaip"))
    folders = [Path(folder) for folder in listed.split(os.pathsep) if folder]
    return [path for folder in folders for path in sorted(folder.glob("*.safetensors")) if config_path(path).exists()]


def config_path(path: Path) -> Path:
    return path.with_suffix(".config.json")


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


class Fixture:
    """One fixture, the network loaded from it, and the largest relative deviation seen per kind of quantity."""

    def __init__(self, path: Path):
        self.tensors = load_file(path)
        self.report = json.loads(config_path(path).read_text())
        self.config = read_config(self.report["config"])
        self.worst: dict[str, tuple[float, str]] = {}
        self.compared = 0
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), self["in.natoms"].cumsum(0)])
        self.target, self.target_energy = self["in.target"], self["in.target_energy"]
        self.model = self.fresh_model()
        self.graph = self.model.graph(self["in.positions"], self["in.atomic_numbers"], self.offsets)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def starting_with(self, prefix: str) -> dict[str, torch.Tensor]:
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def fresh_model(self) -> Escaip:
        model = Escaip(self.config).double().eval()
        model.load_state_dict(self.starting_with("w."), strict=True)
        return model

    def compare(self, kind: str, name: str, value: torch.Tensor) -> None:
        expected = self[name]
        assert value.shape == expected.shape, (name, value.shape, expected.shape)
        scale = max(float(expected.abs().max()), 1e-12)
        deviation = float((value.detach() - expected).abs().max()) / scale
        self.compared += 1
        self.worst[kind] = max(self.worst.get(kind, (0.0, "")), (deviation, name))
        assert deviation <= TOLERANCE[kind], f"{name}: relative deviation {deviation:.2e}"


def check_graph(fixture: Fixture) -> None:
    graph = fixture.graph
    expected_mask = fixture["mid.graph.neighbor_mask"].bool()
    assert torch.equal(graph.mask, expected_mask)
    assert torch.equal(graph.senders[expected_mask], fixture["mid.graph.neighbor_list"][expected_mask])
    fixture.compare("graph", "mid.graph.edge_direction", graph.direction)
    fixture.compare("graph", "mid.graph.edge_distance_expansion", graph.radial)
    fixture.compare("graph", "mid.graph.node_direction_expansion", graph.boo)
    fixture.compare("graph", "mid.graph.angle_cosine", graph.angle_cosine)


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


def record_states(fixture: Fixture) -> dict[str, torch.Tensor]:
    """One forward pass with hooks; returns fixture name -> tensor and compares the outputs."""
    states: dict[str, torch.Tensor] = {}

    def hook(name: str):
        def record(_module, _inputs, output):
            if name.endswith("."):
                states[name + "node"], states[name + "edge"] = output
            else:
                states[name] = output

        return record

    modules = state_names(fixture.config.layers)
    handles = [fixture.model.backbone.get_submodule(path).register_forward_hook(hook(name)) for path, name in modules.items()]
    final = fixture.model.output_heads["forces"].force_direction_layer.final_output
    handles.append(final.register_forward_hook(lambda _module, inputs, _output: states.update({"mid.head.h": inputs[0]})))
    prediction = fixture.model(fixture.graph)
    for handle in handles:
        handle.remove()
    fixture.compare("outputs", "out.forces", prediction.forces)
    fixture.compare("outputs", "out.energy", prediction.energy)
    return states


def check_states(fixture: Fixture) -> None:
    states = record_states(fixture)
    empty = ~fixture.graph.mask
    for name, state in states.items():
        masked = state.masked_fill(empty[..., None], 0.0) if state.dim() == 3 else state
        fixture.compare("states", name, masked)
    compared = {"mid.head.C", "mid.head.a", "mid.head.magnitude"}
    missing = {"mid." + n for n in fixture.starting_with("mid.")} - set(states) - compared
    assert all(name.startswith("mid.graph.") for name in missing), missing


def force_map(fixture: Fixture) -> tuple[torch.Tensor, torch.Tensor]:
    """(m_i [N, 1], C_i [N, 3, 3]) of the specification's section 7, differentiable."""
    node, edge = fixture.model.backbone(fixture.graph)
    magnitude, direction = fixture.model.output_heads["forces"].coefficients(node, edge)
    direction = direction.masked_fill(~fixture.graph.mask[..., None], 0.0)
    matrix = direction.mT @ fixture.graph.direction
    for name, value in {"magnitude": magnitude, "a": direction, "C": matrix}.items():
        fixture.compare("states", f"mid.head.{name}", value)
    return magnitude, matrix


def twisted_by_full_passes(fixture: Fixture) -> torch.Tensor:
    """T^-1 f(T x) [R, N, 3], the geometry recomputed from the rotated positions, the neighbours kept."""
    kept = fixture.graph.senders, fixture.graph.mask
    predictions = []
    for rotation in fixture["in.rotations"]:
        positions = fixture["in.positions"] @ rotation.T
        graph = fixture.model.graph(positions, fixture["in.atomic_numbers"], fixture.offsets, kept)
        predictions.append(fixture.model(graph).forces @ rotation)
    return torch.stack(predictions)


def gradient(loss: torch.Tensor, parameters: list) -> list:
    return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)


def norm_of(gradients: list) -> torch.Tensor:
    return torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()


def check_losses(fixture: Fixture) -> None:
    """Plug-in and exact decompositions with their gradients, from one backbone pass."""
    magnitude, matrix = force_map(fixture)
    with torch.no_grad():
        fixture.compare("outputs", "out.twisted", twisted_by_full_passes(fixture))
    rotations = fixture["in.rotations"]
    diagonals = torch.einsum("nak,rak->rna", matrix, rotations)
    twisted = magnitude * torch.einsum("rna,rak->rnk", diagonals, rotations)
    twirled = twisted.mean(0)
    fixture.compare("outputs", "out.twisted", twisted)
    fixture.compare("outputs", "out.twirled", twirled)
    spread = (twisted - twirled).square().mean(0)
    plug_in = {"_mean": (twirled - fixture.target).square(), "_equiv": spread}
    plug_in[""] = (twisted - fixture.target).square().mean(0)
    for part, squares in plug_in.items():
        fixture.compare("losses", f"out.L{part}", squares.mean())
        molecules = squares.split(fixture["in.natoms"].tolist())
        fixture.compare("losses", f"out.permol_L{part}", torch.stack([m.mean() for m in molecules]).mean())
    exact_mean = magnitude / 3 * matrix.sum(1)
    fixture.compare("outputs", "out.exact.mu", exact_mean)
    centred = matrix - matrix.mean(1, keepdim=True)
    variance = (magnitude[..., None] * centred).square().sum() / (9 * len(matrix))
    exact = {"_mean": force_mse(exact_mean, fixture.target), "_equiv": variance}
    exact[""] = exact["_mean"] + exact["_equiv"]
    parameters = [p for n, p in fixture.model.named_parameters() if ".energy.energy_layer" not in n]
    head = [fixture.model.get_parameter(entry["name"]) for entry in fixture.report["hessian_params"]]
    for part in exact:
        fixture.compare("losses", f"out.exact.L{part}", exact[part])
        loss = plug_in[part].mean()
        fixture.compare("gradients", f"out.gradnorm_L{part}", norm_of(gradient(loss, parameters)))
        fixture.compare("gradients", f"out.exact.gradnorm_L{part}", norm_of(gradient(exact[part], parameters)))
        flat = torch.cat([g.flatten() for g in gradient(loss, head)])
        fixture.compare("gradients", f"out.grad_L{part}.head", flat)


def check_gradients(fixture: Fixture) -> None:
    prediction = fixture.model(fixture.graph)
    losses = {
        "": force_mse(prediction.forces, fixture.target),
        "ref": reference_loss(prediction, fixture.target, fixture.target_energy),
    }
    names = dict(fixture.model.named_parameters())
    for kind, loss in losses.items():
        suffix = "_ref" if kind else ""
        fixture.compare("losses", f"out.loss{suffix}", loss)
        gradients = dict(zip(names, gradient(loss, list(names.values()))))
        fixture.compare("gradients", f"out.gradnorm_loss{suffix}", norm_of(list(gradients.values())))
        for name in fixture.starting_with(f"grad{kind}."):
            fixture.compare("gradients", f"grad{kind}.{name}", gradients[name])
        absent = sorted(name for name, value in gradients.items() if value is None)
        key = "no_grad_under_ref_loss" if kind else "no_grad_under_force_mse"
        assert absent == sorted(fixture.report[key]), absent


def check_training(fixture: Fixture, kind: str) -> None:
    """Three steps on one batch; `kind` is after3 (force MSE) or after3ref (the composite loss)."""
    recipe = fixture.report[kind]
    fixture.model = fixture.fresh_model()
    trainer = Trainer(
        fixture.model, recipe["warmup_steps"], recipe["total_steps"], recipe["lr_initial"], recipe["clip_grad_norm"]
    )
    losses = []
    for step in recipe["steps"]:
        assert abs(trainer.schedule.get_last_lr()[0] - step["lr"]) <= 1e-12 * step["lr"]
        prediction = fixture.model(fixture.graph)
        mse = force_mse(prediction.forces, fixture.target)
        loss = mse if kind == "after3" else reference_loss(prediction, fixture.target, fixture.target_energy)
        losses.append(loss.detach())
        norm = trainer.update(loss)
        assert abs(norm - step["grad_norm_before_clip"]) <= TOLERANCE["adamw"] * norm
    fixture.compare("adamw", f"out.{kind}.losses", torch.stack(losses))
    names = [name for name, _ in fixture.model.named_parameters()]
    values = dict(zip(names, trainer.parameters)) | {"ema." + n: v for n, v in zip(names, trainer.ema)}
    for name in fixture.starting_with(f"out.{kind}."):
        if name != "losses":
            fixture.compare("adamw", f"out.{kind}.{name}", values[name])


def check_lonely_atom(fixture: Fixture) -> None:
    positions = fixture["sing.positions"]
    graph = fixture.model.graph(positions, fixture["sing.atomic_numbers"], torch.tensor([0, len(positions)]))
    assert torch.equal(graph.mask, fixture["sing.neighbor_mask"].bool())
    fixture.compare("graph", "sing.edge_direction", graph.direction)
    prediction = fixture.model(graph)
    fixture.compare("outputs", "sing.forces", prediction.forces)
    fixture.compare("outputs", "sing.energy", prediction.energy)


def check(path: Path) -> Fixture:
    fixture = Fixture(path)
    check_graph(fixture)
    check_states(fixture)
    check_losses(fixture)
    check_gradients(fixture)
    check_lonely_atom(fixture)
    check_training(fixture, "after3")
    check_training(fixture, "after3ref")
    return fixture


def test_the_network_agrees_with_every_fixture() -> None:
    paths = fixtures()
    if not paths:
        print("skipped: no parity fixtures found (set EQUIVBENCH_PARITY or EQUIVBENCH_SHARED)")
    for path in paths:
        fixture = check(path)
        print(f"{path.stem}: {fixture.compared} tensors agree; largest relative deviations:")
        for kind, (deviation, name) in fixture.worst.items():
            print(f"  {kind:10} {deviation:.1e}  {name}")


if __name__ == "__main__":
    test_the_network_agrees_with_every_fixture()
