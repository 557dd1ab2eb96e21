"""Checks proteina.py against the parity fixtures in f64, with and without `savings`. Run as a script or with pytest; fixtures.py says
where they lie.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import fixtures  # noqa: E402
import proteina  # noqa: E402
from proteina import Batch, Config, Proteina, velocity_mse  # noqa: E402
from proteina_quantities import Case, control_quantities, masked, quantities, read_config  # noqa: E402

# Largest deviation divided by the largest entry of the fixture tensor. Rounding leaves 5e-15 (measured) and the bounds leave
# room for another order of summation. Adam divides by second moments, hence its own bound. f32 deviates by 6e-7. Hessians are
# measured against their largest entry.
TOLERANCE = {"states": 1e-12, "outputs": 1e-12, "losses": 1e-12, "gradients": 1e-12, "adam": 1e-10, "single": 1e-5, "hessians": 1e-11}
# Some gradients vanish in exact arithmetic (a shift of all logits of a row changes nothing), so a gradient is measured
# against no less than this fraction of the largest gradient entry of the network.
GRADIENT_FLOOR = 1e-3
# The first that a name starts with; the rest are outputs.
KINDS = {
    "mid.": "states",
    "grad.": "gradients",
    "out.train_grad": "gradients",
    "out.gradnorm": "gradients",
    "out.sc.gradnorm": "gradients",
    "out.hess": "hessians",
    "out.opt_": "adam",
    "out.after3.": "adam",
    "out.ema3.": "adam",
    "out.tgrid": "losses",
    "out.L": "losses",
    "out.sc.L": "losses",
    "out.loss": "losses",
    "out.sc.loss": "losses",
}
PARAMETERS = {
    "60M_notri": 64_641_280,
    "60M_tri": 70_477_360,
    "200M_notri": 190_713_856,
    "200M_tri": 207_614_512,
    "400M_tri": 397_191_168,
}


def check(fixture: fixtures.Fixture, savings: bool) -> None:
    config, comparison = read_config(fixture.report["nn"]), fixtures.Comparison(fixture, TOLERANCE)
    if "in.x1" not in fixture.tensors:
        found = control_quantities(config, fixture.tensors, savings)
        assert found.pop("out.L_equiv") < 1e-24
    else:
        found = quantities(config, fixture.tensors, fixture.report["after3_names"], savings)
    largest = {prefix: largest_of(fixture.starting_with(prefix)) for prefix in ("grad.", "out.train_grad.")}
    for name in found.keys() & fixture.tensors.keys():
        kind = next((kind for prefix, kind in KINDS.items() if name.startswith(prefix)), "outputs")
        floor = next((GRADIENT_FLOOR * value for prefix, value in largest.items() if name.startswith(prefix)), 1e-12)
        if kind == "states" and fixture[name].is_floating_point() and fixture[name].dim() > 2:
            fixture.tensors[name] = masked(fixture[name], fixture["in.mask"])  # rows of padding hold anything
        comparison.compare(kind, name, found[name], floor)
    if "f32.loss" in fixture.tensors:
        check_single_precision(comparison, config)
    comparison.finish("out.L_equiv")


def largest_of(tensors: dict[str, torch.Tensor]) -> float:
    return max((float(value.abs().max()) for value in tensors.values()), default=0.0)


def check_single_precision(comparison: fixtures.Comparison, config: Config) -> None:
    """f32 against the untouched f32 reference: the same classes of every distance, rounding elsewhere."""
    case = Case.of(config, comparison.fixture.tensors)
    single = Batch(*(value.float() if value.is_floating_point() else value for value in case.batch))
    velocity = case.model.float()(single).velocity
    comparison.compare("single", "f32.coors_pred", velocity)
    comparison.compare("single", "f32.loss", velocity_mse(velocity, case.target.float(), single.mask))


# --- tests -----------------------------------------------------------------------------------------------------------


def test_the_network_agrees_with_every_fixture() -> None:
    torch.set_num_threads(1)  # these tensors are so small that threads only wait for each other
    for savings in (False, True):
        print(f"savings {savings}")
        for fixture in fixtures.read("proteina", lambda report: "pair_repr_dim" in report.get("nn", {})):
            check(fixture, savings)


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
    paths = [folder / "init_stats.json" for folder in fixtures.folders("proteina")]
    for path in filter(Path.exists, paths):
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
