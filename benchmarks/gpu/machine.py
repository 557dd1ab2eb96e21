"""What a machine can do at best: copy bandwidth and rates of matrix products, by PyTorch and events of the device.

    python3 machine.py DEVICE
"""

import sys
import time

import torch

DEVICE = sys.argv[1]
ON_GPU = DEVICE.startswith("cuda")


def seconds(work, repeats=10):
    for _ in range(2):
        work()
    if not ON_GPU:
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - start) / repeats
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / repeats


def main():
    print(f"machine,torch,{torch.__version__}")
    if ON_GPU:
        print(f"machine,device,{torch.cuda.get_device_name(DEVICE)}")
        print(f"machine,driver and clocks,{torch.version.cuda}")
    large = 2**30 if ON_GPU else 2**24
    source = torch.randn(large, device=DEVICE)
    target = torch.empty_like(source)
    print(f"machine,copy TB/s,{8 * large / seconds(lambda: target.copy_(source)) / 1e12:.3f}")
    del source, target
    side = 8192 if ON_GPU else 512
    for name, dtype, tf32 in (("f32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False), ("f64", torch.float64, False)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(side, side, device=DEVICE, dtype=dtype) for _ in range(2))
        print(f"machine,matmul {name} TFLOP/s,{2 * side**3 / seconds(lambda: a @ b) / 1e12:.2f}")


if __name__ == "__main__":
    main()
