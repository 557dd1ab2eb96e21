"""What the timing scripts share: requests line by line on stdin, one JSON line for each on stdout."""

import json
import sys
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Peer(Protocol):
    """A model with its problem, ready to be timed."""

    def description(self) -> dict: ...

    def step(self) -> float:
        """One training step; the loss before it."""

    def predict(self) -> Tensor:
        """One prediction in evaluation mode."""

    def target(self) -> Tensor:
        """What a prediction aims at, in its shape."""


def status_mb(name: str) -> float | None:
    """A line of this process's status, in units of 10^6 bytes; None where the system does not say."""
    try:
        with open("/proc/self/status") as status:
            kib = next(line.split()[1] for line in status if line.startswith(name))
    except (OSError, StopIteration):
        return None
    return int(kib) * 1024 / 1e6


BASE_MB = status_mb("VmRSS:")  # Python and the libraries, before there are weights and a batch


def memory() -> dict:
    """The most memory since the last call, and what the process held before it had anything to do."""
    answer = {"peak_mb": status_mb("VmHWM:"), "base_mb": BASE_MB}
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # then the peak is that of the whole life of the process, which is not less
    return answer


def compiler_works() -> bool:
    """Compiles a one-line function; says on stderr why not."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(4))
    except Exception as error:
        print(f"--compile: torch.compile does not work here (it needs a C++ compiler): {error}", file=sys.stderr, flush=True)
        return False
    return True


def answer_lines(description: dict, answer: Callable[[str], dict | None]) -> None:
    """Says `ready`, then answers every line until `quit`. None is a request that is not known."""
    print("ready", json.dumps(description), flush=True)
    for line in sys.stdin:
        request = line.strip()
        if request == "quit":
            return
        print(json.dumps(answer(request) or {"error": f"unknown request {request!r}"}), flush=True)


def serve(peer: Peer) -> None:
    """Answers `step` and `predict` with seconds and loss, and `memory`."""

    def step() -> dict:
        start = time.perf_counter()
        loss = peer.step()
        return {"seconds": time.perf_counter() - start, "loss": loss}

    def predict() -> dict:
        start = time.perf_counter()
        prediction = peer.predict()
        seconds = time.perf_counter() - start
        difference = prediction.double() - peer.target().double()
        return {"seconds": seconds, "loss": difference.square().mean().item()}

    requests = {"step": step, "predict": predict, "memory": memory}
    answer_lines(peer.description(), lambda request: requests[request]() if request in requests else None)
