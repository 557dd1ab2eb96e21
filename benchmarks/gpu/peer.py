"""Times the PyTorch peers on a device, on a batch that `device_trial time ... batch=FOLDER` wrote.

    python3 peer.py MODEL SIZE FOLDER DEVICE [--compile] [--tf32] [--bf16] [--steps 20] [--predictions 10]

Prints lines like those of device_trial: time,peer[-compiled][-tf32|-bf16],model,size,quantity,value. Seconds are those of the host clock
between two waits for the device, the least and the median; peak memory is the allocator's.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers" / "torch"))

import numpy as np
import torch

PROTEINA_SIZES = {"60M": "60M_notri", "60M-tri": "60M_tri", "200M": "200M_notri", "200M-tri": "200M_tri", "400M": "400M_tri"}


def read(folder: Path, device: str) -> dict[str, torch.Tensor]:
    integers = {"offsets", "species", "residue_index", "chain_break"}
    arrays = {}
    for name, shape in json.loads((folder / "shapes.json").read_text()).items():
        values = np.fromfile(folder / f"{name}.bin", dtype=np.int64 if name in integers else np.float32)
        arrays[name] = torch.from_numpy(values.reshape(shape)).to(device)
    return arrays


class Escaip:
    def __init__(self, size, batch, compiled, device):
        import escaip

        self.peer, self.batch = escaip, batch
        self.model = escaip.Escaip(escaip.SIZES[size], False)
        self.network = torch.compile(self.model) if compiled else self.model
        self.trainer = escaip.Trainer(self.model, 1000, 30000, fused=True)

    def predict(self):
        batch = self.batch
        return self.network(self.model.graph(batch["positions"], batch["species"], batch["offsets"])).forces

    def loss(self):
        return self.peer.force_mse(self.predict(), self.batch["target"])


class Proteina:
    def __init__(self, size, batch, compiled, device):
        import proteina

        self.peer, self.config = proteina, proteina.SIZES[PROTEINA_SIZES[size]]
        samples = len(batch["offsets"]) - 1
        residues = len(batch["positions"]) // samples
        flat = samples, residues
        self.batch = proteina.Batch(
            batch["positions"].reshape(*flat, 3),
            batch["flow_time"],
            batch["residue_index"].reshape(flat),
            batch["chain_break"].reshape(flat),
            torch.ones(flat, device=device),
        )
        self.target = batch["target"].reshape(*flat, 3)
        self.model = proteina.Proteina(self.config, False)
        self.network = torch.compile(self.model) if compiled else self.model
        self.trainer = proteina.Trainer(self.model, fused=True)

    def predict(self):
        return self.network(self.batch).velocity

    def loss(self):
        return self.peer.training_loss(self.network(self.batch), self.batch, self.target, self.config)


class Voxmol:
    def __init__(self, size, batch, compiled, device):
        import voxmol

        self.peer, self.batch = voxmol, batch
        self.model = voxmol.VoxMol(voxmol.SIZES[size])
        self.network = torch.compile(self.model) if compiled else self.model
        self.trainer = voxmol.Trainer(self.model, "fused")

    def predict(self):
        return self.network(self.batch["density"])

    def loss(self):
        return self.peer.squared_error(self.predict(), self.batch["target"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["escaip", "proteina", "voxmol"])
    parser.add_argument("size")
    parser.add_argument("folder", type=Path)
    parser.add_argument("device")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--predictions", type=int, default=10)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = arguments.tf32
    torch.backends.cudnn.allow_tf32 = arguments.tf32
    torch.manual_seed(0)
    torch.set_default_device(arguments.device)
    on_gpu = arguments.device.startswith("cuda")
    batch = read(arguments.folder, arguments.device)
    peers = {"escaip": Escaip, "proteina": Proteina, "voxmol": Voxmol}
    peer = peers[arguments.model](arguments.size, batch, arguments.compile, arguments.device)
    kind = arguments.device.split(":")[0]
    precision = torch.autocast(kind, torch.bfloat16) if arguments.bf16 else contextlib.nullcontext()
    name = "-".join(["peer"] + [word for word in ("compile", "tf32", "bf16") if getattr(arguments, word)])

    def report(what, value):
        print(f"time,{name},{arguments.model},{arguments.size},{what},{value:.6f}", flush=True)

    def gate():
        """Warm, and without what steps leave: ready for its turn, which comes when the file GATE is there."""
        name = os.environ.get("GATE")
        if not name:
            return
        if on_gpu:
            torch.cuda.empty_cache()
        Path(name + ".ready").touch()
        while not Path(name).exists():
            time.sleep(0.02)
        step()

    def wait():
        if on_gpu:
            torch.cuda.synchronize()

    def step():
        peer.model.train()
        with precision:
            loss = peer.loss()
        peer.trainer.update(loss)
        return loss.item()

    @torch.no_grad()
    def predict():
        peer.model.eval()
        with precision:
            return peer.predict().float().cpu()

    report("parameters", sum(p.numel() for p in peer.model.parameters()))
    for what, work, count in (("training step", step, arguments.steps), ("prediction", predict, arguments.predictions)):
        if count == 0:
            continue
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for number in range(count + 3):
            if number == 3 and what == "training step":
                gate()
            wait()
            start = time.perf_counter()
            work()
            wait()
            took = time.perf_counter() - start
            if number == 0:
                report(f"first {what}, s", took)
            elif number > 2:
                seconds.append(took)
        report(f"{what}, s (median of {count})", statistics.median(seconds))
        report(f"{what}, s (least)", min(seconds))
        if on_gpu:
            report(f"{what}, peak MB", torch.cuda.max_memory_allocated() / 1e6)


if __name__ == "__main__":
    main()
