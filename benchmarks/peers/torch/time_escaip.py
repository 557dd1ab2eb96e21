"""A peer that takes training steps on request, so that another program can interleave its own measurements with it.

    python3 time_escaip.py --size 6M --threads 2 --batch batch.safetensors [--weights weights.safetensors] [--compile]

On stdout one `ready {json}` line, then one JSON line per request line on stdin:
    step     graph, forward, force MSE, backward, clip, AdamW, moving average  ->  {"seconds": s, "loss": L}
    predict  graph and one forward in eval mode (no gradients)                 ->  {"seconds": s, "loss": L}
    memory   the most memory since the last such request, in units of 10^6 bytes  ->  {"peak_mb": m, "base_mb": b}
    quit     (or the end of stdin) ends the program.
Notes and errors go to stderr. Only the request's own work is timed, not reading, printing or waiting.
"""

import argparse
import sys
from dataclasses import replace

from threads import limit_threads

NO_COMPILER = 69  # exit code, as in sysexits.h


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=["6M", "4M", "1M"], default="6M")
    parser.add_argument("--threads", type=int, default=2)
    contents = "positions [N,3] f32, atomic_numbers [N] i64, offsets [G+1] i64, target [N,3] f32"
    parser.add_argument("--batch", required=True, help=contents)
    parser.add_argument("--weights", help="parameters under the reference names, [out, in]; a missing energy head is left out")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network, not the graph; exits with 69 without a compiler")
    parser.add_argument("--adamw", choices=["fused", "loop"], default="fused", help="loop is torch's default on the CPU")
    parser.add_argument("--no-dropout", action="store_true", help="all dropout rates zero, for comparing losses step by step")
    parser.add_argument("--steps-per-epoch", type=int, default=14844, help="sets warm-up and cosine length")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


ARGUMENTS = parse_arguments()
limit_threads(ARGUMENTS.threads)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import escaip  # noqa: E402
from serving import compiler_works, serve  # noqa: E402


class Peer:
    """The network, its trainer and the one batch that every request uses."""

    def __init__(self, arguments: argparse.Namespace):
        torch.manual_seed(arguments.seed)
        self.batch = load_file(arguments.batch)
        weights = load_weights(arguments.weights) if arguments.weights else {}
        energy_head = not weights or any(name.startswith("output_heads.energy.") for name in weights)
        config = escaip.SIZES[arguments.size]
        if arguments.no_dropout:
            config = replace(config, attention_dropout=0.0, mlp_dropout=0.0)
        self.model = escaip.Escaip(config, energy_head)
        if weights:
            self.model.load_state_dict(weights, strict=True)
        self.network = torch.compile(self.model) if arguments.compile else self.model
        warmup, total = int(0.1 * arguments.steps_per_epoch), 30 * arguments.steps_per_epoch
        self.trainer = escaip.Trainer(self.model, warmup, total, fused=arguments.adamw == "fused")
        self.arguments = arguments

    def description(self) -> dict:
        return {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "atoms": len(self.batch["positions"]),
            "molecules": len(self.batch["offsets"]) - 1,
            **{name: getattr(self.arguments, name) for name in ("size", "compile", "adamw", "no_dropout")},
        }

    def forces(self) -> torch.Tensor:
        graph = self.model.graph(self.batch["positions"], self.batch["atomic_numbers"], self.batch["offsets"])
        return self.network(graph).forces

    def step(self) -> float:
        self.model.train()
        loss = escaip.force_mse(self.forces(), self.target())
        self.trainer.update(loss)
        return loss.item()

    @torch.no_grad()
    def predict(self) -> torch.Tensor:
        self.model.eval()
        return self.forces()

    def target(self) -> torch.Tensor:
        return self.batch["target"]


def load_weights(path: str) -> dict:
    """Parameters by name; the `w.` prefix and other contents of the parity fixtures are accepted."""
    tensors = load_file(path)
    fixture = {name[2:]: value for name, value in tensors.items() if name.startswith("w.")}
    return {name: value.float() for name, value in (fixture or tensors).items()}


def main() -> int:
    torch.set_num_threads(ARGUMENTS.threads)
    torch.set_num_interop_threads(1)
    if ARGUMENTS.compile and not compiler_works():
        return NO_COMPILER
    serve(Peer(ARGUMENTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
