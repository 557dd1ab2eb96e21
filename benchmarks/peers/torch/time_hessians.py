"""Times PyTorch's Hessians of L, L_mean and L_equiv over a linear head on request; ours are `hessian_speed.rs`.

    python3 time_hessians.py --threads 2 [--residues 252] [--width 512] [--rotations 10]

On stdout one `ready {json}` line, then one JSON line per request line on stdin:
    check NAME    trace and norm of each of the three Hessians  ->  {"values": [[t, n], ...]}
    time NAME     all three Hessians once                       ->  {"seconds": s}
    memory        the most memory since the last such request   ->  {"peak_mb": m, "base_mb": b}
    quit          (or the end of stdin) ends the program.

NAME is `hessian` (torch.func.hessian of each loss) or `gauss_newton` (the Jacobian of the twisted predictions by torch.func.jacrev in
chunks, then products with itself: exact, as the prediction is linear in the head). Features `[rotations, residues, width]`, rotations and
target come from `uniform`, the same numbers as ours; everything is in f64.
"""

import argparse
import time

from threads import limit_threads


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--residues", type=int, default=252)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rotations", type=int, default=10)
    return parser.parse_args()


ARGUMENTS = parse_arguments()
limit_threads(ARGUMENTS.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from serving import answer_lines, memory  # noqa: E402

CHUNK = 512  # rows of the Jacobian that are made at once


def uniform(seed: int, count: int) -> np.ndarray:
    """`count` numbers of stream `seed` between -1 and 1: 24 bits of a splitmix64."""
    z = (np.arange(count, dtype=np.uint64) + np.uint64(seed << 40)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0


def quaternion_rotation(q: np.ndarray) -> np.ndarray:
    w, x, y, z = q / np.linalg.norm(q)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])


class Head:
    """A linear head `[width, 3]` on features of rotated copies, plug-in over all rotations."""

    def __init__(self, rotations: int, residues: int, width: int):
        self.features = torch.from_numpy(uniform(1, rotations * residues * width)).view(rotations, residues, width)
        quaternions = uniform(2, 4 * rotations).reshape(rotations, 4)
        self.rotations = torch.from_numpy(np.stack([quaternion_rotation(q) for q in quaternions]))
        self.target = torch.from_numpy(uniform(3, residues * 3)).view(residues, 3)
        self.weight = torch.from_numpy(uniform(4, width * 3)).view(width, 3)

    def twisted(self, weight: Tensor) -> Tensor:
        """Rows of a prediction times the rotation: rotated back, `[rotations, residues, 3]`."""
        return (self.features @ weight) @ self.rotations

    def total(self, weight: Tensor) -> Tensor:
        return (self.twisted(weight) - self.target).square().mean()

    def twirled(self, weight: Tensor) -> Tensor:
        return (self.twisted(weight).mean(0) - self.target).square().mean()

    def equiv(self, weight: Tensor) -> Tensor:
        twisted = self.twisted(weight)
        return (twisted - twisted.mean(0)).square().mean()

    def hessian(self) -> list[Tensor]:
        size = self.weight.numel()
        losses = (self.total, self.twirled, self.equiv)
        return [torch.func.hessian(loss)(self.weight).reshape(size, size) for loss in losses]

    def gauss_newton(self) -> list[Tensor]:
        size = self.weight.numel()
        jacobian = torch.func.jacrev(self.twisted, chunk_size=CHUNK)(self.weight).reshape(*self.twisted(self.weight).shape, size)
        rows = jacobian.reshape(-1, size)
        total = rows.T @ rows * (2 / len(rows))
        mean = jacobian.mean(0).reshape(-1, size)
        twirled = mean.T @ mean * (2 / len(mean))
        return [total, twirled, total - twirled]


def main() -> int:
    torch.set_num_threads(ARGUMENTS.threads)
    torch.set_num_interop_threads(1)
    head = Head(ARGUMENTS.rotations, ARGUMENTS.residues, ARGUMENTS.width)
    ways = {"hessian": head.hessian, "gauss_newton": head.gauss_newton}

    def answer(request: str) -> dict | None:
        word, _, name = request.partition(" ")
        if word == "memory":
            return memory()
        if name not in ways:
            return None
        start = time.perf_counter()
        found = ways[name]()
        if word == "time":
            return {"seconds": time.perf_counter() - start}
        return {"values": [[h.trace().item(), h.norm().item()] for h in found]} if word == "check" else None

    answer_lines({"torch": torch.__version__, "threads": ARGUMENTS.threads}, answer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
