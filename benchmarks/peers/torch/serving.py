"""What the timing scripts share: requests line by line on stdin, one JSON line for each on stdout."""

import json
import sys
import time
from typing import Protocol

import torch


class Peer(Protocol):
    """A model with its problem, ready to be timed."""

    def description(self) -> dict: ...

    def step(self) -> float:
        """One training step; the loss before it."""

    def predict(self) -> float:
        """One prediction; its loss."""


def compiler_works() -> bool:
    """Compiles a one-line function; says on stderr why not."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(4))
    except Exception as error:
        print(f"--compile: torch.compile does not work here (it needs a C++ compiler): {error}", file=sys.stderr, flush=True)
        return False
    return True


def serve(peer: Peer) -> None:
    """Answers `step` and `predict` with seconds and loss until `quit`."""
    requests = {"step": peer.step, "predict": peer.predict}
    print("ready", json.dumps(peer.description()), flush=True)
    for line in sys.stdin:
        request = line.strip()
        if request == "quit":
            return
        if request not in requests:
            print(f"unknown request {request!r}; known: step, predict, quit", file=sys.stderr, flush=True)
            print(json.dumps({"error": f"unknown request {request!r}"}), flush=True)
            continue
        start = time.perf_counter()
        loss = requests[request]()
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "loss": loss}), flush=True)
