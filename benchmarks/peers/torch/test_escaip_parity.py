"""Checks escaip.py against the parity fixtures in f64. Run as a script or with pytest; fixtures.py says where they lie."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import fixtures  # noqa: E402
from escaip_quantities import RECIPES, quantities, read_config  # noqa: E402

# Largest deviation divided by the largest entry of the fixture tensor. Rounding alone leaves about 1e-13 (deep f64 sums);
# these bounds leave room for another order of summation. AdamW divides by tiny second moments, hence its own bound.
TOLERANCE = {"graph": 1e-12, "states": 1e-11, "outputs": 1e-11, "losses": 1e-11, "gradients": 1e-10, "adamw": 1e-8}
# The first that a name starts with; the rest are outputs.
KINDS = {
    "mid.graph.": "graph",
    "mid.": "states",
    "sing.edge": "graph",
    "grad": "gradients",
    "out.after3": "adamw",
    "out.grad": "gradients",
    "out.exact.grad": "gradients",
    "out.exact.L": "losses",
    "out.L": "losses",
    "out.loss": "losses",
    "out.permol": "losses",
}


def check(fixture: fixtures.Fixture) -> None:
    recipes = {name: {key: value for key, value in fixture.report[name].items() if key != "steps"} for name in RECIPES}
    found, report = quantities(read_config(fixture.report["config"]), fixture.tensors, recipes)
    comparison = fixtures.Comparison(fixture, TOLERANCE)
    for name in found.keys() & fixture.tensors.keys():
        kind = next((kind for prefix, kind in KINDS.items() if name.startswith(prefix)), "outputs")
        if name.endswith("neighbor_list"):  # what stands in empty slots means nothing
            mask = fixture[name.replace("_list", "_mask")].bool()
            found[name] = torch.where(mask, found[name], fixture[name])
        comparison.compare(kind, name, found[name])
    for key in ("no_grad_under_force_mse", "no_grad_under_ref_loss", "no_weight_decay_names"):
        assert sorted(report[key]) == sorted(fixture.report[key]), key
    assert report["hessian_params"] == fixture.report["hessian_params"]
    for name in RECIPES:
        for ours, theirs in zip(report[name]["steps"], fixture.report[name]["steps"], strict=True):
            for key, value in theirs.items():
                assert abs(ours[key] - value) <= TOLERANCE["adamw"] * abs(value), (name, key)
    # Dense Hessians and their eigenvalues are not compared with this code.
    comparison.finish("out.hess_", "out.eig_", "out.exact.eig_")


def test_the_network_agrees_with_every_fixture() -> None:
    torch.set_num_threads(1)  # these tensors are so small that threads only wait for each other
    for fixture in fixtures.read("escaip", lambda report: "atten_num_heads" in report.get("config", {})):
        check(fixture)


if __name__ == "__main__":
    test_the_network_agrees_with_every_fixture()
