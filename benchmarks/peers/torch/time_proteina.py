"""A peer that takes training steps on request, so that another program can interleave its own measurements with it.

    python3 time_proteina.py --batch problem.safetensors --threads 2 [--savings] [--compile]

On stdout one `ready {json}` line, then one JSON line per request line on stdin:
    step     forward, flow-matching loss, backward, clip 1, Adam, moving average  ->  {"seconds": s, "loss": L}
    predict  one forward without gradients                                        ->  {"seconds": s, "loss": L}
    memory   the most memory since the last such request, in units of 10^6 bytes  ->  {"peak_mb": m, "base_mb": b}
    quit     (or the end of stdin) ends the program.
Neither request uses self-conditioning. Networks with pair updates add the distogram loss, as in the reference.
Notes and errors go to stderr. Only the request's own work is timed, not reading, printing or waiting.

The file holds `in.x_t` [b,n,3], `in.t` [b], `in.chain_breaks_per_residue` [b,n], `in.mask` [b,n], `in.target` [b,n,3] in
f32 and `in.residue_pdb_idx` [b,n] in i64; the weights as `w.NAME` under the reference names, matrices [out, in], or none of
them for a fresh initialisation; and in its metadata `config`, a JSON object of sizes (fields of proteina.Config).
"""

import argparse
import json
import sys

from threads import limit_threads

INPUT_ERROR, NO_COMPILER = 65, 69  # exit codes, as in sysexits.h


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", required=True, help="the safetensors file described above")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--savings", action="store_true", help="condition once per protein, look one-hot features up")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network; exits with 69 without a compiler")
    parser.add_argument("--adam", choices=["fused", "loop"], default="fused", help="loop is torch's default on the CPU")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, when the file has none")
    return parser.parse_args()


ARGUMENTS = parse_arguments()
limit_threads(ARGUMENTS.threads)

import torch  # noqa: E402
from safetensors import SafetensorError, safe_open  # noqa: E402

import proteina  # noqa: E402
from serving import compiler_works, serve  # noqa: E402


class InputError(Exception):
    """The file does not hold what a measurement needs; the message says what."""


class Problem:
    """What one file holds: sizes, weights and the one batch that every request uses."""

    def __init__(self, path: str):
        try:
            with safe_open(path, "pt") as file:
                self.tensors = {name: file.get_tensor(name) for name in file.keys()}
                metadata = file.metadata() or {}
            self.config = proteina.Config.from_json(json.loads(metadata["config"]))
        except KeyError:
            raise InputError(f"{path}: the metadata has no key `config` (a JSON object of sizes)") from None
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise InputError(f"{path}: {error}") from error
        self.weights = {name[2:]: value.float() for name, value in self.tensors.items() if name.startswith("w.")}
        self.batch = proteina.Batch(*(self.input(name) for name in proteina.Batch._fields))
        self.target = self.input("target")
        self.check_shapes()

    def input(self, name: str) -> torch.Tensor:
        """Floats as f32, integers as they are."""
        value = self.tensors.get(f"in.{name}")
        if value is None:
            raise InputError(f"the file has no tensor `in.{name}`; it has {[n for n in self.tensors if n.startswith('in.')]}")
        return value.float() if value.is_floating_point() else value

    def check_shapes(self) -> None:
        proteins, residues = self.batch.mask.shape
        flat = [proteins, residues]
        expected = {"x_t": [*flat, 3], "t": [proteins], "residue_pdb_idx": flat, "chain_breaks_per_residue": flat}
        for name, shape in expected.items():
            if list(getattr(self.batch, name).shape) != shape:
                raise InputError(f"`in.{name}` is {list(getattr(self.batch, name).shape)}; `in.mask` asks for {shape}")
        if self.target.shape != self.batch.x_t.shape:
            raise InputError(f"`in.target` is {list(self.target.shape)}, `in.x_t` is {list(self.batch.x_t.shape)}")

    def forget_weights(self) -> None:
        """A copy beside the model's own, which training does not need."""
        self.weights = {}
        self.tensors = {name: value for name, value in self.tensors.items() if not name.startswith("w.")}

    def model(self, savings: bool) -> proteina.Proteina:
        model = proteina.Proteina(self.config, savings)
        if self.weights:
            try:
                model.load_state_dict(self.weights, strict=True)
            except RuntimeError as error:
                raise InputError(f"the weights do not fit the sizes {self.config}: {error}") from error
        return model


class Peer:
    """The network, its trainer and the problem."""

    def __init__(self, arguments: argparse.Namespace):
        torch.manual_seed(arguments.seed)
        self.problem, self.arguments = Problem(arguments.batch), arguments
        self.weights = "file" if self.problem.weights else "fresh"
        self.model = self.problem.model(arguments.savings)
        self.problem.forget_weights()
        self.network = torch.compile(self.model) if arguments.compile else self.model
        self.trainer = proteina.Trainer(self.model, **({"fused": True} if arguments.adam == "fused" else {}))

    def description(self) -> dict:
        mask = self.problem.batch.mask
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "proteins": mask.shape[0],
            "padded_residues": mask.shape[1],
            "residues": int(mask.sum()),
            "weights": self.weights,
            **{name: getattr(self.arguments, name) for name in ("savings", "compile", "adam")},
        }

    def step(self) -> float:
        problem = self.problem
        loss = proteina.training_loss(self.network(problem.batch), problem.batch, problem.target, problem.config)
        self.trainer.update(loss)
        return loss.item()

    @torch.no_grad()
    def predict(self) -> torch.Tensor:
        return self.network(self.problem.batch).velocity

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
        print(f"time_proteina: {error}", file=sys.stderr)
        return INPUT_ERROR
    serve(peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
