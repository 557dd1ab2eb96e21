"""A peer that takes training steps on request, so that another program can interleave its own measurements with it.

    python3 time_voxmol.py --batch problem.safetensors --threads 2 [--optimiser foreach] [--channels-last] [--compile]
    python3 time_voxmol.py --size 7M --samples 4 --grid 32

On stdout one `ready {json}` line, then one JSON line per request line on stdin:
    step     forward, summed squared error, backward, AdamW, moving average  ->  {"seconds": s, "loss": L}
    predict  one forward in eval mode, without gradients                     ->  {"seconds": s, "loss": L}
    memory   the most memory since the last such request, in units of 10^6 bytes  ->  {"peak_mb": m, "base_mb": b}
    quit     (or the end of stdin) ends the program.
Notes and errors go to stderr. Only the request's own work is timed, not reading, printing or waiting.

The file holds `in.noisy` and `in.target` [B,C,G,G,G] in f32; the weights as `w.NAME` under the reference names and in the
reference layout, or none of them for a fresh initialisation; and in its metadata `config`, a JSON object of sizes (fields of
voxmol.Config). Without a file, weights and a synthetic batch are drawn from --seed.
"""

import argparse
import json
import sys

from threads import limit_threads

INPUT_ERROR, NO_COMPILER = 65, 69  # exit codes, as in sysexits.h


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", help="the safetensors file described above")
    parser.add_argument("--size", default="7M", help="a name of voxmol.SIZES; used without --batch, as the next two")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--grid", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-dropout", action="store_true", help="makes losses of steps comparable between programs")
    parser.add_argument("--optimiser", choices=["fused", "foreach"], default="fused")
    parser.add_argument("--channels-last", action="store_true", help="let convolutions work in that memory layout")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network; exits with 69 without a compiler")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


ARGUMENTS = parse_arguments()
limit_threads(ARGUMENTS.threads)

import torch  # noqa: E402
from safetensors import SafetensorError, safe_open  # noqa: E402

import voxmol  # noqa: E402
from serving import compiler_works, serve  # noqa: E402


class InputError(Exception):
    """The input is not what a measurement needs; the message says what."""


class Problem:
    """Sizes, weights and the one batch that every request uses."""

    def __init__(self, config: voxmol.Config, noisy: torch.Tensor, target: torch.Tensor, weights: dict[str, torch.Tensor]):
        self.config, self.noisy, self.target, self.weights = config, noisy, target, weights
        shape, halvings = tuple(noisy.shape), 2 ** (len(config.multipliers) - 1)
        if len(shape) != 5 or shape[1] != config.elements or any(side % halvings for side in shape[2:]):
            raise InputError(f"noisy grids {list(shape)}: use [B, {config.elements}, G, G, G] with G divisible by {halvings}")
        if target.shape != noisy.shape:
            raise InputError(f"`in.target` is {list(target.shape)}, `in.noisy` is {list(shape)}")

    @classmethod
    def read(cls, path: str) -> "Problem":
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}
                metadata = file.metadata() or {}
            config = voxmol.Config.from_json(json.loads(metadata["config"]))
            noisy, target = tensors["in.noisy"], tensors["in.target"]
        except KeyError as error:
            raise InputError(f"{path}: needs tensors `in.noisy`, `in.target` and the metadata `config`; {error} is missing") from None
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise InputError(f"{path}: {error}") from error
        return cls(config, noisy, target, {name[2:]: value for name, value in tensors.items() if name.startswith("w.")})

    @classmethod
    def draw(cls, size: str, samples: int, grid: int) -> "Problem":
        """A hundredth of the voxels is filled."""
        if size not in voxmol.SIZES:
            raise InputError(f"--size {size}: there are {', '.join(voxmol.SIZES)}")
        config = voxmol.SIZES[size]
        shape = samples, config.elements, grid, grid, grid
        target = torch.rand(shape) * (torch.rand(shape) < 0.01)
        return cls(config, target + 0.9 * torch.randn(shape), target, {})

    def model(self, dropout: bool) -> voxmol.VoxMol:
        model = voxmol.VoxMol(self.config)
        if self.weights:
            try:
                model.load_state_dict(self.weights, strict=True)
            except RuntimeError as error:
                raise InputError(f"the weights do not fit the sizes {self.config}: {error}") from error
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout) and not dropout:
                module.p = 0.0
        return model


class Peer:
    """The network, its trainer and the problem."""

    def __init__(self, arguments: argparse.Namespace):
        torch.manual_seed(arguments.seed)
        self.arguments = arguments
        drawn = arguments.size, arguments.samples, arguments.grid
        self.problem = Problem.read(arguments.batch) if arguments.batch else Problem.draw(*drawn)
        self.weights = "file" if self.problem.weights else "fresh"
        self.model = self.problem.model(not arguments.no_dropout)
        self.problem.weights = {}  # a copy beside the model's own
        if arguments.channels_last:
            self.model.to(memory_format=torch.channels_last_3d)
            self.problem.noisy = self.problem.noisy.to(memory_format=torch.channels_last_3d)
        self.network = torch.compile(self.model) if arguments.compile else self.model
        self.trainer = voxmol.Trainer(self.model, arguments.optimiser)

    def description(self) -> dict:
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "samples": self.problem.noisy.shape[0],
            "grid": self.problem.noisy.shape[-1],
            "weights": self.weights,
            **{name: getattr(self.arguments, name) for name in ("no_dropout", "optimiser", "channels_last", "compile")},
        }

    def step(self) -> float:
        self.model.train()
        loss = voxmol.squared_error(self.network(self.problem.noisy), self.problem.target)
        self.trainer.update(loss)
        return loss.item() / self.problem.target.numel()

    @torch.no_grad()
    def predict(self) -> torch.Tensor:
        self.model.eval()
        return self.network(self.problem.noisy)

    def target(self) -> torch.Tensor:
        return self.problem.target


def main() -> int:
    torch.set_num_threads(ARGUMENTS.threads)
    torch.set_num_interop_threads(1)
    if ARGUMENTS.compile and not compiler_works():
        return NO_COMPILER
    try:
        peer = Peer(ARGUMENTS)
    except InputError as error:
        print(f"time_voxmol: {error}", file=sys.stderr)
        return INPUT_ERROR
    serve(peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
