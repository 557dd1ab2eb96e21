#!/usr/bin/env bash
# Runs on the machine with the GPU, out of the unpacked folder: measure.sh DEVICE OUT [STEPS [quick]]
#
# For each model: throughput of every size in f32 and bf16 (training; evaluation is always in full precision), once short to fill the
# caches of the kernel compiler and the autotuner, then for the tables.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
device=${1:?measure.sh DEVICE OUT [STEPS [quick]]} out=${2:?measure.sh DEVICE OUT [STEPS [quick]]} steps=${3:-60} quick=${4:-}
mkdir -p "$out"
out=$(cd "$out" && pwd)

declare -A sizes=(
    [escaip]='["1M","4M","6M"]'
    [proteina]='["60M","60M-tri","200M","400M"]'
    [voxmol]='["7M","28M","111M"]'
)
# What the public recipes train with.
declare -A set=(
    [escaip]='train.batch_size=64'
    [proteina]='train.batch_size=3'
    [voxmol]='train.batch_size=16'
)
if [[ $quick == quick ]]; then
    for model in "${!sizes[@]}"; do sizes[$model]='["nano"]'; set[$model]='train.batch_size=2'; done
fi

{
    date -u +%FT%TZ
    uname -srm
    grep -m1 'model name' /proc/cpuinfo || true
    nproc
    if [[ $device != cpu ]]; then nvidia-smi || echo "nvidia-smi is not here"; fi
} > "$out/machine.txt"

if [[ $device != cpu && -z ${CUDA_PATH:-} && ! -d /usr/local/cuda/include ]]; then
    echo "measure.sh: the CUDA headers are needed: set CUDA_PATH to a folder with include/ (pip install nvidia-cuda-runtime nvidia-cuda-nvrtc brings them)" >&2
    exit 2
fi

# The kernel compiler and the autotuner keep what they find here, for the next run too.
export XDG_CACHE_HOME=${XDG_CACHE_HOME:-$out/cache}
failed=()
for model in escaip proteina voxmol; do
    run() {
        "$here/bin/equivbench" run --plugin-dir "$here/plugins" --plugins "$model" --suite throughput --device "$device" \
            --set "model.size=${sizes[$model]}" --set 'run.precision=["f32","bf16"]' --set "${set[$model]}" "$@"
    }
    echo "== $model: warming up" >&2
    run --set train.steps=2 --out "$out/warm-up/$model" > "$out/$model.warm-up.log" 2>&1 || echo "   failed; see $out/$model.warm-up.log" >&2
    echo "== $model: measuring" >&2
    run --set "train.steps=$steps" --out "$out/$model" 2>&1 | tee "$out/$model.log" || failed+=("$model")
done
rm -rf "$out/warm-up"

if ((${#failed[@]})); then
    echo "measure.sh: not all runs of ${failed[*]} ended well; see $out/*.log" >&2
    exit 1
fi
