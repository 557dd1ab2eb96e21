"""Threads of the timing scripts. To be used before torch is imported: its OpenMP reads these variables once."""

import os


def limit_threads(threads: int) -> None:
    """Idle workers must not spin on cores that others use."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0", "OMP_DYNAMIC": "FALSE"}
