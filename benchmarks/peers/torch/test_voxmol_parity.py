"""Checks voxmol.py and voxeliser.py against the parity fixtures in f64. Run as a script or with pytest; fixtures.py says where they lie."""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import fixtures  # noqa: E402
from voxmol import OPTIMISERS, SIZES, Config, VoxMol  # noqa: E402
from voxmol_quantities import Case, density_quantities, quantities, read_config  # noqa: E402

# Largest deviation divided by the largest entry of the fixture tensor. Rounding leaves 1e-14 where the fixture is in f64 and
# 6e-8 where it was rounded to f32; the bounds leave room for another order of summation. Cosines and pooled latents are of
# order one. Weights are compared absolutely: three steps move each by about 6e-5. Densities of the reference are computed in f32.
TOLERANCE = {"rounded": 2e-7, "outputs": 1e-10, "losses": 1e-12, "latents": 1e-11, "norms": 1e-11, "hessians": 1e-11}
TOLERANCE |= {"weights": 1e-11, "single": 1e-5, "densities": 3e-6, "sums": 1e-12}
# The first that a name starts with; the rest are outputs, or rounded where the fixture holds f32.
KINDS = {
    "out.after3.losses": "losses",
    "out.loss": "losses",
    "out.L": "losses",
    "out.set": "losses",
    "out.percent": "losses",
    "out.gradnorm": "norms",
    "out.headgrad": "norms",
    "out.hess": "hessians",
    "out.latent": "latents",
    "out.cos": "latents",
}
# Gradients that vanish in exact arithmetic are noise of rounding.
GRADIENT_FLOOR = 1e-5
PARAMETERS = {"111M": 111_520_424, "28M": 27_896_408, "7M": 6_982_256}
DENSITIES = {"g16_mol": (16, 4), "g16_probe": (16, 2), "g32_mol": (32, 2), "g64_mol": (64, 8)}


def check(fixture: fixtures.Fixture, optimiser: str) -> None:
    config, comparison = read_config(fixture.report), fixtures.Comparison(fixture, TOLERANCE)
    paths = set(fixture.starting_with("mid."))
    found = quantities(config, fixture.tensors, paths, optimiser, fixture.report["optimiser"])
    largest = max(float(value.abs().max()) for value in fixture.starting_with("grad.").values())
    for name in found.keys() & fixture.tensors.keys():
        kind = next((kind for prefix, kind in KINDS.items() if name.startswith(prefix)), "outputs")
        kind = "rounded" if fixture[name].dtype == torch.float32 else kind
        if name.startswith("out.after3") and kind != "losses":
            compare_weights(comparison, name, found[name], largest)
        else:
            comparison.compare(kind, name, found[name], GRADIENT_FLOOR * largest if name.startswith("grad.") else 1e-12)
    check_unused(fixture, found)
    single = Case.of(config, fixture.tensors).model.float()(fixture["in.noisy"])
    comparison.compare("single", "out.pred", single.double())
    comparison.finish()


def compare_weights(comparison: fixtures.Comparison, name: str, found: torch.Tensor, largest: float) -> None:
    """All that does not move by the sign of rounding noise, which Adam without epsilon makes whole steps of."""
    parameter = name.split(".", 2)[2]
    gradient = comparison.fixture[f"grad.{parameter}"]
    where = torch.ones_like(gradient, dtype=torch.bool)
    if name.endswith("attn.projection.bias"):
        where.view(3, -1)[1] = False  # those of the keys shift all scores of a row alike
    # Biases that only reach norms with one channel for a group: 1e-16 in the fixture, others are above 1e-9.
    noise = name.endswith(".bias") and 0 < float(gradient.abs().max()) < 1e-12 * largest
    comparison.compare("weights", name, found, 1.0, where & (not noise))


def check_unused(fixture: fixtures.Fixture, found: dict[str, torch.Tensor]) -> None:
    """The norms of attention are never applied: no gradient, no step, no decay."""
    unused = [name for name in fixture.starting_with("w.") if ".attn.norm." in name]
    assert unused and not any(found[f"grad.{name}"].any() for name in unused)
    for name in unused:
        start = fixture[f"w.{name}"].double()
        assert torch.equal(found[f"out.after3.{name}"], start) and torch.equal(found[f"out.after3_ema.{name}"], start)


def check_densities(fixture: fixtures.Fixture) -> None:
    """Grids, sums, placed molecules, tables of rotations."""
    comparison = fixtures.Comparison(fixture, TOLERANCE)
    for name, value in density_quantities(fixture.tensors, DENSITIES).items():
        where = None
        if name.startswith("augment.") and not name.endswith("rotation"):
            where = (fixture["augment.in.atoms_channel"] < 999)[:, None].expand_as(value)
        kind = "sums" if name.endswith("formula") else "densities"
        comparison.compare(kind, name, value, 1.0, where)
    summaries = tuple(f"{name}.out.channel_{what}" for name in DENSITIES for what in ("sum", "sumsq", "max"))
    inputs = tuple(f"{name}.in." for name in DENSITIES)
    comparison.finish(*summaries, *inputs, "augment.in.", "rot.matrices", "g64_mol.out.probe_flat_index")


# --- tests -----------------------------------------------------------------------------------------------------------


def test_the_network_agrees_with_every_fixture() -> None:
    torch.set_num_threads(1)  # these tensors are so small that threads only wait for each other
    for optimiser in OPTIMISERS:
        print(f"optimiser {optimiser}")
        for fixture in fixtures.read("voxmol", lambda report: "ch_mults" in report):
            check(fixture, optimiser)


def test_densities_agree_with_every_fixture() -> None:
    paths = [folder / "voxelizer.safetensors" for folder in fixtures.folders("voxmol")]
    paths = [path for path in paths if path.exists() or path.with_name(path.name + ".gz").exists()]
    assert paths
    for path in paths:
        check_densities(fixtures.Fixture(f"{path.parent.name}/{path.stem}", {}, fixtures.read_tensors(path)))


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
    test_densities_agree_with_every_fixture()
