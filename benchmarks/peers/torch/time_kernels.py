"""Times PyTorch's counterparts of the fused operations on request, forward and backward; ours are `kernel_speed.rs`.

    python3 time_kernels.py --threads 2 [--compile]

On stdout one `ready {json}` line that names what PyTorch does for every kernel, then one JSON line per request line on stdin:
    check NAME    dot product and norm of the result and of every gradient  ->  {"values": [[d, n], ...]}
    time NAME N   forward and backward, the mean of N runs after one more   ->  {"seconds": s}
    quit          (or the end of stdin) ends the program.

A counterpart is PyTorch's own operation where there is one, else what one would write in its place; inputs are views, masks
and indices as the models have them. Both programs take the same numbers from `uniform`.
"""

import argparse
import sys
import time
from typing import Callable, NamedTuple

from threads import limit_threads

ATOMS, SLOTS, RADIAL, BAND, CHAINS, TOKENS = 44, 20, 600, 25, 3, 138
EDGES, PAIRS = ATOMS * SLOTS, CHAINS * 128 * 128
COTANGENT = 99  # seed of the cotangents of a result and of the first gradient's
NO_COMPILER = 69  # exit code, as in sysexits.h


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile every operation; exits with 69 without a compiler")
    return parser.parse_args()


ARGUMENTS = parse_arguments()
limit_threads(ARGUMENTS.threads)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from serving import answer_lines, compiler_works  # noqa: E402


def uniform(seed: int, count: int) -> np.ndarray:
    """`count` numbers of stream `seed` between -1 and 1: 24 bits of a splitmix64, exact in f32."""
    z = (np.arange(count, dtype=np.uint64) + np.uint64(seed << 40)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def scattered(count: int, divisor: int) -> Tensor:
    """Integers that jump about."""
    k = torch.arange(count)
    return k * 7919 + k // divisor


class Inputs:
    """Hands out tensors, each from a stream of its own."""

    def __init__(self):
        self.seed = 0

    def constant(self, *shape: int) -> Tensor:
        self.seed += 1
        return torch.from_numpy(uniform(self.seed, int(np.prod(shape)))).view(shape)

    def leaf(self, *shape: int) -> Tensor:
        return self.constant(*shape).requires_grad_()


# --- the operations: a function and what PyTorch calls it; leaves in the order of kernel_speed.rs ---------------------


class Kernel(NamedTuple):
    torch_op: str
    make: Callable[[Inputs], tuple[Callable[..., Tensor], tuple[Tensor, ...]]]  # a function and its leaves
    random: bool = False  # whether results depend on random numbers, of which the two programs have other ones


def silu(i: Inputs):
    return F.silu, (i.leaf(414, 512),)


def gelu(i: Inputs):
    return F.gelu, (i.leaf(EDGES, 512),)


def swiglu(i: Inputs):
    def function(x):
        a, gate = x.chunk(2, -1)
        return a * F.silu(gate)

    return function, (i.leaf(414, 4096),)


def sigmoid_gate(i: Inputs):
    return lambda x, gate: x * torch.sigmoid(gate), (i.leaf(414, 512), i.leaf(414, 512))


def gated_residual(i: Inputs):
    def function(x, y, gates):
        by_chain = CHAINS, TOKENS, -1
        return (x.view(by_chain) + y.view(by_chain) * torch.sigmoid(gates)[:, None]).flatten(0, 1)

    return function, (i.leaf(414, 512), i.leaf(414, 512), i.leaf(CHAINS, 512))


def dropout(i: Inputs):
    return lambda x: F.dropout(x, 0.05), (i.leaf(EDGES, 512),)


def rms_norm(i: Inputs):
    return lambda x, gain: F.rms_norm(x, (128,), gain, 1e-7), (i.leaf(EDGES, 128), i.leaf(128))


def layer_norm(rows: int, width: int):
    def make(i: Inputs):
        return lambda x, weight, bias: F.layer_norm(x, (width,), weight, bias, 1e-5), (i.leaf(rows, width), i.leaf(width), i.leaf(width))

    return make


def adaptive_layer_norm(i: Inputs):
    def function(x, scale, shift):
        normal = F.layer_norm(x, (512,), eps=1e-5).view(CHAINS, TOKENS, 512)
        return (normal * scale[:, None] + shift[:, None]).flatten(0, 1)

    return function, (i.leaf(414, 512), i.leaf(CHAINS, 512), i.leaf(CHAINS, 512))


def group_norm(channels: int, side: int, groups: int, probability: float = 0.0):
    def make(i: Inputs):
        def function(x, scale, shift):
            y = F.silu(F.group_norm(x, groups, scale, shift, 1e-5))
            return F.dropout(y, probability) if probability else y

        return function, (i.leaf(4, channels, side, side, side), i.leaf(channels), i.leaf(channels))

    return make


def slot_mask() -> Tensor:
    """[atoms, slots], False in every tenth slot."""
    return (torch.arange(ATOMS)[:, None] + torch.arange(SLOTS)) % 10 != 0


def masked_softmax_slots(i: Inputs):
    scores, bias, scale = i.leaf(ATOMS, 8, SLOTS, SLOTS), i.constant(ATOMS, SLOTS, SLOTS), i.leaf(1)
    mask = slot_mask()

    def function(scores, scale):
        return torch.softmax(scores + (scale * bias).masked_fill(~mask[:, None], -torch.inf)[:, None], -1)

    return function, (scores, scale)


def affine_map(i: Inputs, inputs: int, outputs: int):
    """A weight whose products with numbers of size one have size one, as a model's have, and a bias."""
    weight = (i.constant(inputs, outputs) * float(np.float32(1 / np.sqrt(inputs)))).requires_grad_()
    return weight, i.leaf(outputs)


def affine(i: Inputs):
    x, (weight, bias) = i.leaf(EDGES, 128), affine_map(i, 128, 384)
    return lambda x, weight, bias: torch.addmm(bias, x, weight), (x, weight, bias)


def activated_affine(i: Inputs):
    x, (weight, bias) = i.leaf(EDGES, 128), affine_map(i, 128, 128)
    return lambda x, weight, bias: F.gelu(torch.addmm(bias, x, weight)), (x, weight, bias)


def feed_forward(i: Inputs):
    x, gain, first, second = i.leaf(EDGES, 128), i.leaf(128), affine_map(i, 128, 256), affine_map(i, 256, 128)

    def function(x, gain, w1, b1, w2, b2):
        hidden = F.gelu(torch.addmm(b1, F.rms_norm(x, (128,), gain, 1e-7), w1))
        return x + torch.addmm(b2, hidden, w2)

    return function, (x, gain, *first, *second)


def edge_ends():
    return scattered(EDGES, 3) % ATOMS, torch.arange(EDGES) // SLOTS


def edge_attributes(i: Inputs):
    pairs, (senders, receivers) = torch.arange(EDGES) // 2, edge_ends()
    embedding, source, target = i.leaf(EDGES // 2, 512), i.leaf(ATOMS, 192), i.leaf(ATOMS, 192)

    def function(embedding, source, target, weight, bias):
        wide = torch.cat([F.gelu(embedding)[pairs], source[senders], target[receivers]], 1)
        return F.gelu(torch.addmm(bias, wide, weight))

    return function, (embedding, source, target, *affine_map(i, 896, 128))


def edge_messages(i: Inputs):
    senders, receivers = edge_ends()
    attributes, node = i.leaf(EDGES, 128), i.leaf(ATOMS, 128)

    def function(attributes, node, w1, b1, w2, b2, w3, b3):
        ends = F.gelu(torch.addmm(b1, torch.cat([node[senders], node[receivers]], 1), w1))
        return torch.addmm(b3, F.gelu(torch.addmm(b2, torch.cat([attributes, ends], 1), w2)), w3)

    return function, (attributes, node, *affine_map(i, 256, 128), *affine_map(i, 256, 128), *affine_map(i, 128, 384))


def softmax(i: Inputs):
    return lambda scores: torch.softmax(scores, -1), (i.leaf(4, 1, 512, 512),)


def slot_attention(probability: float = 0.0):
    def make(i: Inputs):
        qkv, bias, scale = i.leaf(ATOMS, SLOTS, 3 * 128), i.constant(ATOMS, SLOTS, SLOTS), i.leaf(1)
        mask = slot_mask()

        def function(qkv, scale):
            query, key, value = qkv.view(ATOMS, SLOTS, 3, 8, 16).permute(2, 0, 3, 1, 4)
            additive = (scale * bias).masked_fill(~mask[:, None], -torch.inf)[:, None]
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=additive, dropout_p=probability)
            return mixed.transpose(1, 2).reshape(ATOMS, SLOTS, 128)

        return function, (qkv, scale)

    return make


def pair_biased_attention(i: Inputs):
    def function(query, key, value, bias):
        query, key, value = (x.view(CHAINS, TOKENS, 8, 64).transpose(1, 2) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.permute(0, 3, 1, 2))
        return mixed.transpose(1, 2).reshape(CHAINS * TOKENS, 512)

    return function, (*(i.leaf(CHAINS * TOKENS, 512) for _ in range(3)), i.leaf(CHAINS, TOKENS, TOKENS, 8))


def gather_rows(i: Inputs):
    index = scattered(EDGES, 3) % ATOMS
    return lambda x: x.index_select(0, index), (i.leaf(ATOMS, 128),)


def segment_sum(i: Inputs):
    owner = torch.arange(EDGES) // SLOTS
    return lambda x: x.new_zeros(ATOMS, 128).index_add(0, owner, x), (i.leaf(EDGES, 128),)


def lookup_sum(i: Inputs):
    rows = 127, 128, 64
    tables = [i.leaf(count, 256) for count in rows]
    choices = [scattered(PAIRS, 128) % count for count in rows]

    def function(*tables):
        first, second, third = (F.embedding(choice, table) for choice, table in zip(choices, tables))
        return first + second + third

    return function, tables


def banded_radial(i: Inputs):
    starts = scattered(EDGES, 1) % (RADIAL - BAND)
    bands = i.constant(EDGES, BAND)
    dense = torch.zeros(EDGES, RADIAL).scatter(1, starts[:, None] + torch.arange(BAND), bands)
    return lambda weight, bias: torch.addmm(bias, dense, weight), (i.leaf(RADIAL, 512), i.leaf(512))


def conv(channels: int, outputs: int, side: int, kernel: int, **options: int):
    def make(i: Inputs):
        leaves = i.leaf(4, channels, side, side, side), i.leaf(outputs, channels, *[kernel] * 3), i.leaf(outputs)
        return lambda x, weight, bias: F.conv3d(x, weight, bias, **options), leaves

    return make


def conv_up(i: Inputs):
    leaves = i.leaf(4, 32, 16, 16, 16), i.leaf(32, 32, 4, 4, 4), i.leaf(32)
    return lambda x, weight, bias: F.conv_transpose3d(x, weight, bias, stride=2, padding=1), leaves


def adamw_parameters(i: Inputs):
    """Matrices of transformers and their biases, with gradients; no function belongs to them."""
    sizes = [512 * 512] * 24 + [1024 * 128] * 28 + [512] * 52
    parameters = [i.leaf(size) for size in sizes]
    for parameter, size in zip(parameters, sizes):
        parameter.grad = i.constant(size)
    return None, tuple(parameters)


ATTENTION = "F.scaled_dot_product_attention with an additive bias"
KERNELS = {
    "silu": Kernel("F.silu", silu),
    "gelu": Kernel("F.gelu", gelu),
    "swiglu": Kernel("a * F.silu(gate)", swiglu),
    "sigmoid_gate": Kernel("x * torch.sigmoid(gate)", sigmoid_gate),
    "gated_residual": Kernel("x + y * torch.sigmoid(gates) broadcast", gated_residual),
    "dropout": Kernel("F.dropout", dropout, random=True),
    "rms_norm": Kernel("F.rms_norm", rms_norm),
    "layer_norm_tokens": Kernel("F.layer_norm", layer_norm(414, 512)),
    "layer_norm_pairs": Kernel("F.layer_norm", layer_norm(PAIRS, 256)),
    "adaptive_layer_norm": Kernel("F.layer_norm * scale + shift broadcast", adaptive_layer_norm),
    "group_norm_silu_8": Kernel("F.silu(F.group_norm)", group_norm(8, 32, 8)),
    "group_norm_silu_32": Kernel("F.silu(F.group_norm)", group_norm(32, 32, 16)),
    "group_norm_silu_64": Kernel("F.silu(F.group_norm)", group_norm(64, 16, 16)),
    "group_norm_silu_dropout": Kernel("F.dropout(F.silu(F.group_norm))", group_norm(32, 32, 16, 0.1), random=True),
    "masked_softmax_slots": Kernel("torch.softmax of scores + scale * bias, masked", masked_softmax_slots),
    "softmax": Kernel("torch.softmax", softmax),
    "affine": Kernel("torch.addmm", affine),
    "activated_affine": Kernel("F.gelu(torch.addmm)", activated_affine),
    "feed_forward": Kernel("F.rms_norm, torch.addmm, F.gelu, torch.addmm, +", feed_forward),
    "edge_attributes": Kernel("F.gelu, gathers, torch.cat, torch.addmm, F.gelu", edge_attributes),
    "edge_messages": Kernel("gathers, torch.cat, torch.addmm and F.gelu twice, torch.addmm", edge_messages),
    "slot_attention": Kernel(ATTENTION, slot_attention()),
    "slot_attention_dropout": Kernel(f"{ATTENTION} and dropout", slot_attention(0.1), random=True),
    "pair_biased_attention": Kernel(ATTENTION, pair_biased_attention),
    "gather_rows": Kernel("index_select", gather_rows),
    "segment_sum": Kernel("index_add", segment_sum),
    "lookup_sum": Kernel("sum of three F.embedding", lookup_sum),
    "banded_radial": Kernel("torch.addmm with the dense matrix", banded_radial),
    "conv3d_same3_8": Kernel("F.conv3d", conv(8, 8, 32, 3, padding=1)),
    "conv3d_same3_32": Kernel("F.conv3d", conv(32, 32, 32, 3, padding=1)),
    "conv3d_same3_64": Kernel("F.conv3d", conv(64, 64, 16, 3, padding=1)),
    "conv3d_down3": Kernel("F.conv3d", conv(32, 32, 32, 3, stride=2, padding=1)),
    "conv3d_up4": Kernel("F.conv_transpose3d", conv_up),
    "conv3d_point": Kernel("F.conv3d", conv(64, 32, 32, 1)),
    "adamw_step": Kernel("clip_grad_norm_, fused AdamW, _foreach_lerp_", adamw_parameters),
}


# --- checking and timing ---------------------------------------------------------------------------------------------


def dot_and_norm(values: Tensor, seed: int) -> list[float]:
    flat = values.detach().double().flatten().numpy()
    return [float(flat @ uniform(seed, len(flat)).astype(np.float64)), float(np.linalg.norm(flat))]


class Case:
    """An operation with its leaves."""

    def __init__(self, function: Callable[..., Tensor], leaves: tuple[Tensor, ...]):
        self.function, self.leaves = function, leaves
        if ARGUMENTS.compile:
            torch._dynamo.reset()
            self.function = torch.compile(function, dynamic=False)
        self.ones = torch.ones_like(self.function(*leaves))

    def check(self) -> dict:
        result = self.function(*self.leaves)
        cotangent = torch.from_numpy(uniform(COTANGENT, result.numel())).view(result.shape)
        gradients = torch.autograd.grad((result * cotangent).sum(), self.leaves)
        return {"values": [dot_and_norm(x, COTANGENT + k) for k, x in enumerate([result, *gradients])]}

    def run(self) -> None:
        torch.autograd.grad(self.function(*self.leaves), self.leaves, self.ones)


class AdamWCase:
    """A step of the optimiser: clipping, AdamW, moving average."""

    def __init__(self, parameters: tuple[Tensor, ...]):
        self.parameters = parameters
        self.average = [p.detach().clone() for p in parameters]
        self.optimiser = torch.optim.AdamW(parameters, lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True)

    def check(self) -> dict:
        """Of what three steps change of the parameters and of their average."""
        start = torch.cat([p.detach() for p in self.parameters])
        for _ in range(3):
            self.run()
        changes = [torch.cat([p.detach() for p in after]) - start for after in (self.parameters, self.average)]
        return {"values": [dot_and_norm(change, COTANGENT + k) for k, change in enumerate(changes)]}

    def run(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 10.0)
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - 0.999)


def prepare(kernel: Kernel) -> Case | AdamWCase:
    function, leaves = kernel.make(Inputs())
    return Case(function, leaves) if function else AdamWCase(leaves)


def seconds_of(case: Case | AdamWCase, runs: int) -> dict:
    case.run()
    start = time.perf_counter()
    for _ in range(runs):
        case.run()
    return {"seconds": (time.perf_counter() - start) / runs}


def main() -> int:
    torch.set_num_threads(ARGUMENTS.threads)
    torch.set_num_interop_threads(1)
    if ARGUMENTS.compile and not compiler_works():
        return NO_COMPILER
    held: dict[str, Case | AdamWCase] = {}

    def answer(request: str) -> dict | None:
        what, _, rest = request.partition(" ")
        name, _, runs = rest.partition(" ")
        if name not in KERNELS or what not in ("check", "time"):
            return None
        if ARGUMENTS.compile and name == "adamw_step":
            return {"error": "the optimiser runs as it is, its fused path is compiled already"}
        if name not in held:
            held.clear()
            held[name] = prepare(KERNELS[name])
        return held[name].check() if what == "check" else seconds_of(held[name], int(runs))

    kernels = {name: {"torch_op": kernel.torch_op, "random": kernel.random} for name, kernel in KERNELS.items()}
    answer_lines({"torch": torch.__version__, "threads": torch.get_num_threads(), "kernels": kernels}, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
