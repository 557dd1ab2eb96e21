"""Parity fixtures as files: `NAME.config.json` (sizes, optimiser logs) beside `NAME.safetensors`, compressed or not.

They are read from tests/parity/MODEL of the repository (written by write_fixtures.py) and from the directories of
EQUIVBENCH_PARITY, a list like PATH, by default parity/MODEL below EQUIVBENCH_SHARED or below ../shared next to the repository.
"""

import gzip
import json
import os
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[3]
COMMITTED = REPOSITORY / "tests" / "parity"
# What has a name of its own in a fixture and is no result: weights, inputs, the inputs of the lonely atom.
GIVEN = ("w.", "in.", "sing.positions", "sing.atomic_numbers")


def folders(model: str) -> list[Path]:
    shared = Path(os.environ.get("EQUIVBENCH_SHARED", REPOSITORY.parent / "shared"))
    listed = os.environ.get("EQUIVBENCH_PARITY", str(shared / "parity" / model))
    return [COMMITTED / model, *(Path(folder) for folder in listed.split(os.pathsep) if folder)]


def read_tensors(path: Path) -> dict[str, Tensor]:
    packed = path.with_name(path.name + ".gz")
    content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    return safetensors.torch.load(content)


class Fixture(NamedTuple):
    name: str
    report: dict  # the JSON file
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def starting_with(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def write(self, folder: Path) -> None:
        """Byte for byte the same for the same numbers."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: self.tensors[name].detach().contiguous() for name in sorted(self.tensors)}
        packed = gzip.compress(safetensors.torch.save(tensors), compresslevel=9, mtime=0)
        (folder / f"{self.name}.safetensors.gz").write_bytes(packed)
        (folder / f"{self.name}.config.json").write_text(json.dumps(self.report, indent=1) + "\n")
        print(f"{folder.name}/{self.name}: {len(tensors)} tensors, {len(packed) / 1e3:.0f} kB")


def read(model: str, belongs) -> list[Fixture]:
    """The fixtures of a model: those whose JSON `belongs` accepts."""
    found = []
    for config in (path for folder in folders(model) for path in sorted(folder.glob("*.config.json"))):
        report, name = json.loads(config.read_text()), config.name.removesuffix(".config.json")
        if belongs(report):
            found.append(Fixture(f"{config.parent.name}/{name}", report, read_tensors(config.with_name(f"{name}.safetensors"))))
    assert found, f"no fixtures of {model}"
    return found


class Comparison:
    """Computed tensors beside those of a fixture: every one within its tolerance, the largest deviation of each kind told."""

    def __init__(self, fixture: Fixture, tolerance: dict[str, float]):
        self.fixture, self.tolerance = fixture, tolerance
        self.worst: dict[str, tuple[float, str]] = {}
        self.compared: set[str] = set()

    def compare(self, kind: str, name: str, found: Tensor, floor: float = 1e-12, where: Tensor | None = None) -> None:
        """The largest deviation over the largest entry of the fixture's tensor, or over `floor` if that is more.

        `where` says which entries count; None stands for all. Integers and masks must be equal.
        """
        expected = self.fixture[name]
        assert found.shape == expected.shape, (name, found.shape, expected.shape)
        self.compared.add(name)
        if not expected.is_floating_point():
            assert torch.equal(found.to(expected.dtype), expected), name
            return
        difference, scale = (found.detach() - expected).abs(), max(float(expected.abs().max()), floor)
        difference = difference if where is None else difference[where]
        deviation = float(difference.max()) / scale if difference.numel() else 0.0
        self.worst[kind] = max(self.worst.get(kind, (0.0, "")), (deviation, name))
        assert deviation <= self.tolerance[kind], f"{self.fixture.name}: {name} deviates by {deviation:.2e}"

    def finish(self, *left_out: str) -> None:
        """Every result of the fixture was compared, but for names that start with one of `left_out`."""
        missing = [n for n in self.fixture.tensors if n not in self.compared and not n.startswith(GIVEN + left_out)]
        assert not missing, f"{self.fixture.name}: not compared: {missing}"
        print(f"{self.fixture.name}: {len(self.compared)} tensors agree; largest deviations:")
        for kind, (deviation, name) in self.worst.items():
            print(f"  {kind:10} {deviation:.1e}  {name}")
