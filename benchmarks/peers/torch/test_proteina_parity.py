"""Checks proteina.py against the parity fixtures in f64, with and without `savings`. Run as a script or with pytest.

EQUIVBENCH_PARITY: directories with NAME.config.json + NAME.safetensors, separated like PATH. Default: parity/proteina under
EQUIVBENCH_SHARED, or under ../shared next to the repository. Without fixtures it prints "skipped: ..." and passes.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
import proteina  # noqa: E402
from proteina import Batch, Config, Proteina, Trainer, velocity_mse  # noqa: E402

# Largest deviation divided by the largest entry of the fixture tensor. Rounding leaves 5e-15 (measured) and the bounds leave
# room for another order of summation. Adam divides by second moments, hence its own bound. f32 deviates by 6e-7.
TOLERANCE = {"states": 1e-12, "outputs": 1e-12, "losses": 1e-12, "gradients": 1e-12, "adam": 1e-10, "single": 1e-5}
# Some gradients vanish in exact arithmetic (a shift of all logits of a row changes nothing), so a gradient is measured
# against no less than this fraction of the largest gradient entry of the network.
GRADIENT_FLOOR = 1e-3
PARAMETERS = {
    "60M_notri": 64_641_280,
    "60M_tri": 70_477_360,
    "200M_notri": 190_713_856,
    "200M_tri": 207_614_512,
    "400M_tri": 397_191_168,
}


def parity_folders() -> list[Path]:
    repository = Path(__file__).resolve().parents[3]
    shared = Path(os.environ.get("EQUIVBENCH_SHARED", repository.parent / "shared"))
    listed = os.environ.get("EQUIVBENCH_PARITY", str(shared / "parity" / "proteina"))
    return [Path(folder) for folder in listed.split(os.pathsep) if folder]


def fixtures() -> list[Path]:
    """The safetensors files of all fixtures; empty when there are none on this machine."""
    found = [path for folder in parity_folders() for path in sorted(folder.glob("*.safetensors"))]
    found = [path for path in found if config_path(path).exists()]
    if not found:
        print("skipped: no parity fixtures found (set EQUIVBENCH_PARITY or EQUIVBENCH_SHARED)")
    return found


def config_path(path: Path) -> Path:
    return path.with_suffix(".config.json")


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


class Fixture:
    """One fixture, the network loaded from it, and the largest relative deviation seen per kind of quantity."""

    def __init__(self, path: Path, savings: bool):
        self.tensors, self.savings = load_file(path), savings
        self.config = read_config(json.loads(config_path(path).read_text())["nn"])
        self.worst: dict[str, tuple[float, str]] = {}
        self.compared = 0
        names = [f"in.{name}" for name in Batch._fields]
        self.batch, self.target = Batch(*(self[name] for name in names)), self["in.target"]
        self.model = self.fresh_model()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def starting_with(self, prefix: str) -> dict[str, torch.Tensor]:
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def fresh_model(self) -> Proteina:
        model = Proteina(self.config, self.savings).double()
        model.load_state_dict(self.starting_with("w."), strict=True)
        return model

    def compare(self, kind: str, name: str, value: torch.Tensor, floor: float = 1e-12) -> None:
        expected = self[name]
        assert value.shape == expected.shape, (name, value.shape, expected.shape)
        scale = max(float(expected.abs().max()), floor)
        deviation = float((value.detach() - expected).abs().max()) / scale
        self.compared += 1
        self.worst[kind] = max(self.worst.get(kind, (0.0, "")), (deviation, name))
        assert deviation <= TOLERANCE[kind], f"{name}: relative deviation {deviation:.2e}"

    def loss(self, x_sc: torch.Tensor | None = None) -> torch.Tensor:
        return proteina.training_loss(self.model(self.batch, x_sc), self.batch, self.target, self.config)


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


def record_states(model: Proteina, batch: Batch) -> dict[str, torch.Tensor]:
    """One forward pass with hooks; fixture name -> tensor."""
    states: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(path).register_forward_hook(lambda _module, _inputs, output, name=name: states.update({name: output}))
        for path, name in state_names(model.config).items()
    ]
    model(batch)
    for handle in handles:
        handle.remove()
    return states


def masked(state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Zero where padded; tokens and pairs, with or without registers in front."""
    mask = torch.nn.functional.pad(mask, (state.shape[1] - mask.shape[1], 0), value=1.0)
    return state * (proteina.outer(mask) if state.dim() == 4 else mask)[..., None]


def check_states(fixture: Fixture) -> None:
    states, batch, config = record_states(fixture.model, fixture.batch), fixture.batch, fixture.config
    for name, state in states.items():
        expected = masked(fixture[f"mid.{name}"], batch.mask)
        fixture.tensors[f"mid.{name}"] = expected
        fixture.compare("states", f"mid.{name}", masked(state.expand_as(expected), batch.mask))
    fixture.compare("states", "mid.time_emb", proteina.time_embedding(batch.t, config.time_width))
    index = proteina.index_embedding(batch.residue_pdb_idx, config.index_width)
    fixture.compare("states", "mid.idx_emb", masked(index, batch.mask))
    separation, _, position = fixture.model.pair_repr_builder.init_repr_factory.bins(batch, None)
    bins = torch.stack([separation, position], -1) * proteina.outer(batch.mask)[..., None].long()
    assert torch.equal(bins, fixture["mid.pair_bins"])
    missing = set(fixture.starting_with("mid.")) - set(states) - {"time_emb", "idx_emb", "pair_bins"}
    assert not missing, missing


# --- outputs, losses, gradients --------------------------------------------------------------------------------------


def check_outputs(fixture: Fixture) -> None:
    batch = fixture.batch
    for prefix, x_sc in {"out.": None, "out.sc.": fixture["in.x_sc"]}.items():
        prediction = fixture.model(batch, x_sc)
        fixture.compare("outputs", prefix + "coors_pred", prediction.velocity)
        fixture.compare("losses", prefix + "loss", velocity_mse(prediction.velocity, fixture.target, batch.mask))
        fixture.compare("losses", prefix + "loss_train", fixture.loss(x_sc))
    velocity, logits = fixture.model(batch)
    x_1 = proteina.clean_sample(batch.x_t, batch.t, velocity)
    fixture.compare("outputs", "out.x1_pred", x_1)
    fixture.compare("outputs", "in.x_sc", x_1)
    centre = velocity.sum(1, keepdim=True) / batch.mask.sum(1)[:, None, None]
    fixture.compare("outputs", "out.v_centred", masked(velocity - centre, batch.mask))
    flow_matching = proteina.flow_matching_loss(velocity, fixture.target, batch.t, batch.mask)
    fixture.compare("losses", "out.loss_fm_per_protein", flow_matching)
    assert (logits is not None) == ("out.pair_pred" in fixture.tensors)
    if logits is not None:
        fixture.compare("outputs", "out.pair_pred", logits)
        auxiliary = proteina.distogram_loss(logits, fixture["in.x1"], batch.t, batch.mask, fixture.config.distogram_max_nm)
        fixture.compare("losses", "out.loss_aux_per_protein", auxiliary)


def check_single_precision(fixture: Fixture) -> None:
    """f32 against the untouched f32 reference: the same classes of every distance, rounding elsewhere."""
    single = Batch(*(value.float() if value.is_floating_point() else value for value in fixture.batch))
    velocity = fixture.fresh_model().float()(single).velocity
    fixture.compare("single", "f32.coors_pred", velocity)
    fixture.compare("single", "f32.loss", velocity_mse(velocity, fixture.target.float(), single.mask))


def gradients(model: Proteina, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Zeros where the loss does not reach."""
    names, parameters = zip(*model.named_parameters())
    values = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if v is None else v for n, p, v in zip(names, parameters, values)}


def norm_of(gradient: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([value.square().sum() for value in gradient.values()]).sum().sqrt()


def check_gradients(fixture: Fixture) -> None:
    velocity = fixture.model(fixture.batch).velocity
    losses = {
        ("grad.", "out.gradnorm_loss"): velocity_mse(velocity, fixture.target, fixture.batch.mask),
        ("out.train_grad.", "out.train_gradnorm"): fixture.loss(),
    }
    for (prefix, norm_name), loss in losses.items():
        gradient, expected = gradients(fixture.model, loss), fixture.starting_with(prefix)
        floor = GRADIENT_FLOOR * max(float(value.abs().max()) for value in expected.values())
        fixture.compare("gradients", norm_name, norm_of(gradient))
        for name in expected:
            fixture.compare("gradients", prefix + name, gradient[name], floor)
        if prefix == "grad.":
            assert set(gradient) == set(expected)


# --- the equivariance block ------------------------------------------------------------------------------------------


def predict_twice(model: Proteina, batch: Batch) -> torch.Tensor:
    """The velocity with the network's own, detached, first guess as self-conditioning."""
    with torch.no_grad():
        x_sc = proteina.clean_sample(batch.x_t, batch.t, model(batch).velocity)
    return model(batch, x_sc).velocity


def predict_once(model: Proteina, batch: Batch) -> torch.Tensor:
    return model(batch).velocity


def twist(fixture: Fixture, batch: Batch, predict=predict_once) -> torch.Tensor:
    """f(x R^T) R for every rotation, [K, b, n, 3]."""
    rotated = [batch._replace(x_t=batch.x_t @ rotation.T) for rotation in fixture["in.rotations"]]
    predictions = [predict(fixture.model, one) @ rotation for one, rotation in zip(rotated, fixture["in.rotations"])]
    return torch.stack(predictions)


def decompose(twisted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """L, L_mean and L_equiv (plug-in), each protein counted the same."""
    twirled = twisted.mean(0)
    return {
        "L": proteina.per_protein((twisted - target).square(), mask).mean(),
        "L_mean": velocity_mse(twirled, target, mask),
        "L_equiv": proteina.per_protein((twisted - twirled).square(), mask).mean(),
    }


def check_decomposition(fixture: Fixture) -> None:
    for prefix, predict in {"out.": predict_once, "out.sc.": predict_twice}.items():
        twisted = twist(fixture, fixture.batch, predict)
        fixture.compare("outputs", prefix + "twisted", twisted)
        fixture.compare("outputs", prefix + "twirled", twisted.mean(0))
        for name, loss in decompose(twisted, fixture.target, fixture.batch.mask).items():
            fixture.compare("losses", prefix + name, loss)
            norm = norm_of(gradients(fixture.model, loss))
            fixture.compare("gradients", f"{prefix}gradnorm_{name.removeprefix('L_')}", norm)


@torch.no_grad()
def check_flow_times(fixture: Fixture) -> None:
    rows = []
    for t in fixture["in.tgrid"]:
        x_t = (1 - t) * fixture["in.x0"] + t * fixture["in.x1"]
        batch = fixture.batch._replace(x_t=x_t, t=t.expand(len(x_t)))
        rows.append(torch.stack(list(decompose(twist(fixture, batch), fixture.target, batch.mask).values())))
    fixture.compare("losses", "out.tgrid_L_Lmean_Lequiv", torch.stack(rows))


def check_training(fixture: Fixture) -> None:
    """Three steps on one batch: losses, norms, weights and their moving average."""
    fixture.model = fixture.fresh_model()
    trainer = Trainer(fixture.model)
    losses, norms = [], []
    for _ in range(3):
        losses.append(fixture.loss())
        norms.append(trainer.update(losses[-1]))
    losses.append(fixture.loss())
    fixture.compare("adam", "out.opt_losses", torch.stack(losses))
    fixture.compare("adam", "out.opt_gradnorm_before_clip", torch.tensor(norms, dtype=torch.float64))
    names = [name for name, _ in fixture.model.named_parameters()]
    for prefix, values in {"out.after3.": trainer.parameters, "out.ema3.": trainer.ema}.items():
        values = dict(zip(names, values))
        for name in fixture.starting_with(prefix):
            fixture.compare("adam", prefix + name, values[name])


@torch.no_grad()
def check_control(fixture: Fixture) -> None:
    """Weights of the exactly equivariant family: the equivariance error is rounding noise."""
    twisted = twist(fixture, fixture.batch)
    losses = decompose(twisted, fixture.target, fixture.batch.mask)
    fixture.compare("outputs", "out.coors_pred", twisted.mean(0))
    fixture.compare("losses", "out.L", losses["L"])
    assert losses["L_equiv"] < 1e-24, losses["L_equiv"]


def check(path: Path, savings: bool) -> Fixture:
    fixture = Fixture(path, savings)
    if "in.x1" not in fixture.tensors:
        check_control(fixture)
        return fixture
    check_states(fixture)
    check_outputs(fixture)
    check_single_precision(fixture)
    check_gradients(fixture)
    check_decomposition(fixture)
    check_flow_times(fixture)
    check_training(fixture)
    return fixture


# --- tests -----------------------------------------------------------------------------------------------------------


def test_the_network_agrees_with_every_fixture() -> None:
    torch.set_num_threads(1)  # these tensors are so small that threads only wait for each other
    for path in fixtures():
        for savings in (False, True):
            fixture = check(path, savings)
            print(f"{path.stem}, savings {savings}: {fixture.compared} tensors agree; largest relative deviations:")
            for kind, (deviation, name) in fixture.worst.items():
                print(f"  {kind:10} {deviation:.1e}  {name}")


def test_the_sizes_have_their_published_parameter_counts() -> None:
    for name, expected in PARAMETERS.items():
        with torch.device("meta"):
            model = Proteina(proteina.SIZES[name])
        assert sum(parameter.numel() for parameter in model.parameters()) == expected, name


def check_initial_values(name: str, value: torch.Tensor, mean: float, std: float, low: float, high: float) -> None:
    """Against one draw of the reference: six standard errors of a difference, and the range, which tells the shape."""
    count, ours = value.numel(), float(value.std(correction=0))
    if std == 0:
        assert torch.all(value == mean), name
        return
    assert abs(float(value.mean()) - mean) <= 6 * std * (2 / count) ** 0.5, name
    assert abs(ours - std) <= 6 * std / count**0.5, (name, ours, std)
    if count >= 5000:  # a range of 1.73 (uniform), 2.27 (cut normal) or about 4 (normal) standard deviations
        assert abs(float(value.abs().max()) - max(high, -low)) <= 0.2 * max(high, -low), name


def test_fresh_weights_are_distributed_as_the_references() -> None:
    for path in [folder / "init_stats.json" for folder in parity_folders()]:
        if not path.exists():
            print(f"skipped: no {path.name} there (set EQUIVBENCH_PARITY or EQUIVBENCH_SHARED)")
            continue
        torch.manual_seed(0)
        model = Proteina(Config(layers=2, update_every=2))
        parameters = dict(model.named_parameters())
        rows = json.loads(path.read_text())["rows"]
        assert {row[0] for row in rows} <= set(parameters)
        for name, shape, *statistics in rows:
            assert list(parameters[name].shape) == shape, name
            check_initial_values(name, parameters[name].detach(), *statistics)


def test_sizes_are_read_by_name_and_unknown_names_are_refused() -> None:
    assert Config.from_json({"token_width": 24, "update_every": 2}) == Config(token_width=24, update_every=2)
    try:
        Config.from_json({"token_widht": 24})
    except ValueError as error:
        assert "token_widht" in str(error)
    else:
        raise AssertionError("an unknown key was accepted")


if __name__ == "__main__":
    test_the_sizes_have_their_published_parameter_counts()
    test_sizes_are_read_by_name_and_unknown_names_are_refused()
    test_fresh_weights_are_distributed_as_the_references()
    test_the_network_agrees_with_every_fixture()
