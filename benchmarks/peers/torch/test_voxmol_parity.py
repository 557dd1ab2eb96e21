"""Checks voxmol.py against the parity fixtures in f64. Run as a script or with pytest.

EQUIVBENCH_PARITY: directories with NAME.config.json + NAME.safetensors, separated like PATH. Default: parity/voxmol under
EQUIVBENCH_SHARED, or under ../shared next to the repository. Without fixtures it prints "skipped: ..." and passes.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from voxmol import OPTIMISERS, SIZES, Config, Trainer, VoxMol, squared_error  # noqa: E402

# Largest deviation divided by the largest entry of the fixture tensor. Rounding leaves 1e-14 where the fixture is in f64 and
# 6e-8 where it was rounded to f32; the bounds leave room for another order of summation. Cosines and pooled latents are of
# order one. Weights are compared absolutely: three steps move each by about 6e-5.
TOLERANCE = {"states": 2e-7, "outputs": 1e-10, "rounded": 2e-7, "losses": 1e-12, "latents": 1e-11, "gradients": 2e-7, "norms": 1e-11}
TOLERANCE |= {"weights": 1e-11, "single": 1e-5}
# Gradients that vanish in exact arithmetic are noise of rounding.
GRADIENT_FLOOR = 1e-5
PARAMETERS = {"111M": 111_520_424, "28M": 27_896_408, "7M": 6_982_256}


def fixtures() -> list[Path]:
    """The safetensors files of all networks; empty when there are none on this machine."""
    repository = Path(__file__).resolve().parents[3]
    shared = Path(os.environ.get("EQUIVBENCH_SHARED", repository.parent / "shared"))
    listed = os.environ.get("EQUIVBENCH_PARITY", str(shared / "parity" / "voxmol"))
    folders = [Path(folder) for folder in listed.split(os.pathsep) if folder]
    found = [path for folder in folders for path in sorted(folder.glob("*.safetensors")) if config_path(path).exists()]
    if not found:
        print("skipped: no parity fixtures found (set EQUIVBENCH_PARITY or EQUIVBENCH_SHARED)")
    return found


def config_path(path: Path) -> Path:
    return path.with_suffix(".config.json")


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


class Fixture:
    """One fixture, the network loaded from it, and the largest relative deviation seen per kind of quantity."""

    def __init__(self, path: Path):
        self.tensors = load_file(path)
        self.report = json.loads(config_path(path).read_text())
        self.config = read_config(self.report)
        self.worst: dict[str, tuple[float, str]] = {}
        self.compared = 0
        self.noisy, self.target = self["in.noisy"].double(), self["in.target"].double()
        self.model = self.fresh_model()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def starting_with(self, prefix: str) -> dict[str, torch.Tensor]:
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def fresh_model(self) -> VoxMol:
        model = VoxMol(self.config).double()
        model.load_state_dict(self.starting_with("w."), strict=True)
        return model

    def compare(self, kind: str, name: str, value: torch.Tensor, floor: float = 1e-12) -> None:
        self.measure(kind, name, value, max(float(self[name].abs().max()), floor))

    def measure(self, kind: str, name: str, value: torch.Tensor, scale: float, where: torch.Tensor | None = None) -> None:
        """`where` says which entries count; None stands for all."""
        expected = self[name]
        assert value.shape == expected.shape, (name, value.shape, expected.shape)
        difference = (value.detach() - expected).abs()
        deviation = float((difference if where is None else difference[where]).max()) / scale
        self.compared += 1
        self.worst[kind] = max(self.worst.get(kind, (0.0, "")), (deviation, name))
        assert deviation <= TOLERANCE[kind], f"{name}: deviation {deviation:.2e}"


# --- states and outputs ----------------------------------------------------------------------------------------------


def check_states(fixture: Fixture) -> None:
    """Every recorded module output; the fixture has a few more names for some of them."""
    model, states = fixture.model, {}
    paths = set(fixture.starting_with("mid.")) - {"act", "enc_out", "bottleneck"}
    handles = [
        model.get_submodule(path).register_forward_hook(lambda _module, _inputs, output, path=path: states.update({path: output}))
        for path in paths
    ]
    prediction = model(fixture.noisy)
    for handle in handles:
        handle.remove()
    states |= {"act": F.silu(states["norm"]), "enc_out": states[f"down.{len(model.down) - 1}"], "bottleneck": states["middle"]}
    for name in fixture.starting_with("mid."):
        fixture.compare("states", f"mid.{name}", states[name])
    fixture.compare("outputs", "out.pred", prediction)


def check_single_precision(fixture: Fixture) -> None:
    prediction = fixture.fresh_model().float()(fixture["in.noisy"])
    fixture.compare("single", "out.pred", prediction.double())


def gradients(model: VoxMol, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Zeros where the loss does not reach."""
    names, parameters = zip(*model.named_parameters())
    values = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return {n: torch.zeros_like(p) if v is None else v for n, p, v in zip(names, parameters, values)}


def norm_of(gradient: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([value.square().sum() for value in gradient.values()]).sum().sqrt()


def check_gradients(fixture: Fixture) -> None:
    """Of the mean over components; the sum, which training uses, is compared by its value."""
    total = squared_error(fixture.model(fixture.noisy), fixture.target)
    fixture.compare("losses", "out.loss_sum", total)
    loss = total / fixture.target.numel()
    fixture.compare("losses", "out.loss", loss)
    gradient, expected = gradients(fixture.model, loss), fixture.starting_with("grad.")
    assert set(gradient) == set(expected)
    largest = max(float(value.abs().max()) for value in expected.values())
    for name in expected:
        fixture.compare("gradients", f"grad.{name}", gradient[name], GRADIENT_FLOOR * largest)
    unused = [name for name in gradient if ".attn.norm." in name]
    assert unused and all(not gradient[name].any() for name in unused)


# --- rotations -------------------------------------------------------------------------------------------------------


def gather_table(rotation: torch.Tensor, side: int) -> torch.Tensor:
    """[side^3]: the voxel that moves to each place, (T_R x)[q] = x[R^T (q - mid) + mid]."""
    places = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3) - (side - 1) / 2
    sources = ((places @ rotation) + (side - 1) / 2).round().long()
    return (sources[:, 0] * side + sources[:, 1]) * side + sources[:, 2]


def rotate(grids: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    return grids.flatten(2)[..., gather_table(rotation, grids.shape[-1])].view_as(grids)


def decompose(twisted: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """L, L_mean and L_equiv over a list of rotations [K, B, C, G, G, G]."""
    twirled = twisted.mean(0)
    return {
        "L": (twisted - target).square().mean(),
        "L_mean": (twirled - target).square().mean(),
        "L_equiv": (twisted - twirled).square().mean(),
    }


def check_decomposition(fixture: Fixture) -> None:
    rotations, model = fixture["in.rotations"], fixture.model
    tables = torch.stack([gather_table(rotation, 4) for rotation in rotations])
    assert torch.equal(tables, fixture["in.rot_gather_g4"].long())
    twisted = torch.stack([rotate(model(rotate(fixture.noisy, rotation)), rotation.T) for rotation in rotations])
    some = twisted[fixture["in.twisted_idx"].long()]
    fixture.compare("outputs" if fixture["out.twisted"].dtype == torch.float64 else "rounded", "out.twisted", some)
    fixture.compare("outputs", "out.twirled", twisted.mean(0))
    losses = decompose(twisted, fixture.target)
    head = ("final.weight", "final.bias")
    for name, loss in losses.items():
        fixture.compare("losses", f"out.{name}", loss)
        gradient, short = gradients(model, loss), name.removeprefix("L_")
        fixture.compare("norms", f"out.gradnorm_{short}", norm_of(gradient))
        fixture.compare("norms", f"out.headgrad_{short}", torch.cat([gradient[part].flatten() for part in head]))
    fixture.compare("losses", "out.percent", 100 * losses["L_equiv"] / losses["L"])
    spread = (twisted - twisted.mean(0)).square().mean((0, 2, 3, 4, 5))
    fixture.compare("losses", "out.L_equiv_per_sample", spread)
    for which in ("setA", "setB"):
        for name, loss in decompose(twisted[fixture[f"in.{which}_idx"].long()], fixture.target).items():
            fixture.compare("losses", f"out.{which}.{name}", loss)


@torch.no_grad()
def check_latents(fixture: Fixture) -> None:
    def latents(noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        encoded = fixture.model.encode(noisy)[-1]
        return {"enc": encoded, "mid": fixture.model.middle(encoded)}

    rotations, straight = fixture["in.rotations"], latents(fixture.noisy)
    turned = [latents(rotate(fixture.noisy, rotation)) for rotation in rotations]
    for name, latent in straight.items():
        of_rotated = torch.stack([one[name] for one in turned])
        rotated = torch.stack([rotate(latent, rotation) for rotation in rotations])
        pooled, pooled_of_rotated = latent.mean((2, 3, 4)), of_rotated.mean((3, 4, 5))
        fixture.compare("latents", f"out.latent_pool_{name}", pooled)
        fixture.compare("latents", f"out.latent_pool_{name}_rot", pooled_of_rotated)
        invariance = F.cosine_similarity(pooled_of_rotated, pooled[None], dim=-1)
        fixture.compare("latents", f"out.cos_pool_{name}", invariance)
        equivariance = F.cosine_similarity(of_rotated.flatten(2), rotated.flatten(2), dim=-1)
        fixture.compare("latents", f"out.cos_spatial_{name}", equivariance)


# --- training --------------------------------------------------------------------------------------------------------


def reproducible(name: str, gradient: torch.Tensor, largest: float) -> torch.Tensor:
    """Which entries do not move by the sign of rounding noise, which Adam without epsilon makes whole steps of."""
    mask = torch.ones_like(gradient, dtype=torch.bool)
    if name.endswith("attn.projection.bias"):
        mask.view(3, -1)[1] = False  # those of the keys shift all scores of a row alike
    # Biases that only reach norms with one channel for a group: 1e-16 in the fixture, others are above 1e-9.
    noise = name.endswith(".bias") and 0 < float(gradient.abs().max()) < 1e-12 * largest
    return mask & (not noise)


def check_training(fixture: Fixture, optimiser: str) -> None:
    """Three steps on one batch: losses, weights and their moving average."""
    recipe = fixture.report["optimiser"]
    model = fixture.fresh_model().train()
    names, start = zip(*((name, value.detach().clone()) for name, value in model.named_parameters()))
    rates = recipe["lr"], tuple(recipe["betas"]), recipe["weight_decay"], recipe["ema_decay"]
    trainer = Trainer(model, optimiser, *rates)
    losses = []
    for _ in range(recipe["steps"]):
        losses.append(squared_error(model(fixture.noisy), fixture.target))
        trainer.update(losses[-1])
    losses.append(squared_error(model(fixture.noisy), fixture.target))
    fixture.compare("losses", "out.after3.losses", torch.stack(losses))
    gradient = {name: fixture[f"grad.{name}"] for name in names}
    largest = max(float(value.abs().max()) for value in gradient.values())
    for prefix, values in {"out.after3.": trainer.parameters, "out.after3_ema.": trainer.ema}.items():
        found = dict(zip(names, values))
        for name in fixture.starting_with(prefix).keys() - {"losses"}:
            where = reproducible(name, gradient[name], largest)
            if where.any():
                fixture.measure("weights", prefix + name, found[name], 1.0, where)
        unused = [(name, before) for name, before in zip(names, start) if ".attn.norm." in name]
        assert unused and all(torch.equal(found[name], before) for name, before in unused)


def check(path: Path) -> Fixture:
    fixture = Fixture(path)
    check_states(fixture)
    check_single_precision(fixture)
    check_gradients(fixture)
    check_decomposition(fixture)
    check_latents(fixture)
    for optimiser in OPTIMISERS:
        check_training(fixture, optimiser)
    return fixture


# --- tests -----------------------------------------------------------------------------------------------------------


def test_the_network_agrees_with_every_fixture() -> None:
    torch.set_num_threads(1)  # these tensors are so small that threads only wait for each other
    for path in fixtures():
        fixture = check(path)
        print(f"{path.stem}: {fixture.compared} tensors agree; largest deviations:")
        for kind, (deviation, name) in fixture.worst.items():
            print(f"  {kind:10} {deviation:.1e}  {name}")


def test_the_sizes_have_their_published_parameter_counts() -> None:
    for name, expected in PARAMETERS.items():
        with torch.device("meta"):
            model = VoxMol(SIZES[name])
        assert sum(parameter.numel() for parameter in model.parameters()) == expected, name


def test_both_optimisers_leave_what_has_no_gradient_and_skip_zeros() -> None:
    """The rule for a second moment of zero, and no decay without a gradient."""
    for name, optimiser in OPTIMISERS.items():
        used, unused = torch.nn.Parameter(torch.tensor([2.0, 2.0])), torch.nn.Parameter(torch.tensor([5.0]))
        steps = optimiser([used, unused], 0.1, (0.9, 0.99), 0.5)
        steps.zero_grad()
        (used * torch.tensor([1e-12, 0.0])).sum().backward()
        steps.step()
        # The first step of Adam is the rate, whatever the gradient; decay takes 5 %.
        assert torch.allclose(used.detach(), torch.tensor([1.8, 1.9]), atol=1e-6), name
        assert unused.item() == 5.0, name


def test_sizes_are_read_by_name_and_unknown_names_are_refused() -> None:
    assert Config.from_json({"width": 8, "multipliers": [1, 2], "attention": [False, True]}).widths == [8, 8, 16]
    for values, named in {'{"widht": 8}': "widht", '{"attention": [true]}': "attention flag"}.items():
        try:
            Config.from_json(json.loads(values))
        except ValueError as error:
            assert named in str(error)
        else:
            raise AssertionError(f"{values} was accepted")


if __name__ == "__main__":
    test_the_sizes_have_their_published_parameter_counts()
    test_both_optimisers_leave_what_has_no_gradient_and_skip_zeros()
    test_sizes_are_read_by_name_and_unknown_names_are_refused()
    test_the_network_agrees_with_every_fixture()
