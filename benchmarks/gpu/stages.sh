#!/usr/bin/env bash
# The way of a GPU machine through everything that is asked of it, in stages: stages.sh PACK DEVICE OUT [STAGE ...]
#
# PACK is the unpacked folder (bin/, plugins/, peers), DEVICE cpu or cuda:N, OUT takes results at once. A stage that left OUT/NAME.done is
# skipped; without names all run, the cheapest and most telling first:
#   parity escaip proteina voxmol machine peers curves bf16 large check
# Every program has a time limit, so that a hang costs at most that. QUICK=1 takes the smallest sizes, to try the way out on a CPU.
# Everything is packed into OUT/results.tar.gz at the end. Needs bash, tar and timeout; python3 with torch for the peers.
set -u
pack=$(cd "${1:?stages.sh PACK DEVICE OUT [STAGE ...]}" && pwd) device=${2:?} out=${3:?}
shift 3
mkdir -p "$out/log" && out=$(cd "$out" && pwd)
started=$SECONDS
trial=$pack/bin/device_trial program=$pack/bin/equivbench
export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-$out/cache} CUDA_CACHE_MAXSIZE=4294967296 XDG_CACHE_HOME=$out/cache

say() { echo "[$((SECONDS - started)) s] $*"; }
# limit SECONDS LOG COMMAND...: appends to OUT/LOG.csv what the command prints, keeps its complaints, says how it ended.
limit() {
    local seconds=$1 name=$2 at=$SECONDS code=0
    shift 2
    timeout -k 5 "$seconds" "$@" >> "$out/$name.csv" 2>> "$out/log/$name.err" || code=$?
    local tool=${1##*/}
    say "$name: exit $code in $((SECONDS - at)) s: $tool ${*:2}" | sed "s#$pack/##g" | tee -a "$out/log/stages.txt"
    [ "$code" = 0 ] || tail -n 3 "$out/log/$name.err" | cut -c1-400
    return "$code"
}
library() { echo "$pack/plugins/libequivbench_$1.so"; }

stage_machine() {
    { date -u +%FT%TZ; uname -srm; nproc; grep -m1 'model name' /proc/cpuinfo; } >> "$out/machine.csv"
    [ "$device" = cpu ] || nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,memory.total,power.draw --format=csv >> "$out/machine.csv"
    limit 60 machine python3 "$pack/machine.py" "$device"
}
# All models and precisions at once: compilation of kernels, on one thread each, takes most of the time.
stage_parity() {
    local model precision jobs=() code=0
    for model in escaip proteina voxmol; do
        for precision in f64 f32+f32; do
            limit 120 "parity-$model-$precision" "$trial" parity "$(library $model)" "$device" precisions=$precision samples=2 \
                points=$([ $model = voxmol ] && echo 16 || echo 24) &
            jobs+=($!)
        done
    done
    for job in "${jobs[@]}"; do wait "$job" || code=1; done
    cat "$out"/parity-*.csv
    return $code
}
# time_one MODEL SIZE SAMPLES POINTS PRECISION LIMIT [KEY=VALUE ...]
time_one() {
    local model=$1 size=$2 samples=$3 points=$4 precision=$5 seconds=$6
    shift 6
    limit "$seconds" "time" "$trial" time "$(library "$model")" "$device" size="$size" samples="$samples" points="$points" precision="$precision" \
        batch="$out/batch/$model-$size" "$@"
}
# profile MODEL SIZE SAMPLES POINTS PRECISION: what every kernel of a step took, by events of the device.
profile() {
    [ "$device" = cpu ] && return
    CUBECL_DEBUG_OPTION=profile CUBECL_DEBUG_LOG="$out/log/profile-$1-$5.txt" limit 60 profile "$trial" time "$(library "$1")" "$device" \
        size="$2" samples="$3" points="$4" precision="$5" training=1 prediction=1
    tail -n 400 "$out/log/profile-$1-$5.txt" > "$out/log/profile.tail" && mv "$out/log/profile.tail" "$out/log/profile-$1-$5.txt"
}
stage_escaip() {
    [ "${QUICK:-}" ] && { time_one escaip nano 2 12 f32+f32 60 training=2 prediction=2; return; }
    time_one escaip 6M 64 40 f32+f32 60 && profile escaip 6M 64 40 f32+f32
}
stage_proteina() {
    [ "${QUICK:-}" ] && { time_one proteina nano 2 12 f32+f32 60 training=2 prediction=2; return; }
    time_one proteina 60M 24 256 f32+f32 60 && profile proteina 60M 24 256 f32+f32
}
stage_voxmol() {
    [ "${QUICK:-}" ] && { time_one voxmol nano 2 16 f32+f32 60 training=2 prediction=2; return; }
    time_one voxmol 7M 4 32 f32+f32 40 training=3 prediction=3 && profile voxmol 7M 4 32 f32+f32
    time_one voxmol 111M 2 64 f32+f32 40 training=1 prediction=1
}
stage_bf16() {
    [ "${QUICK:-}" ] && { time_one escaip nano 2 12 bf16+f32 60 training=2 prediction=0; return; }
    time_one escaip 6M 64 40 bf16+f32 45 prediction=0
    time_one proteina 60M 24 256 bf16+f32 45 prediction=0
    time_one voxmol 111M 16 64 bf16+f32 60 training=2 prediction=0
}
peer() { limit "$1" peers python3 "$pack/peer.py" "${@:2}"; }
stage_peers() {
    if [ "${QUICK:-}" ]; then
        time_one escaip 1M 2 12 f32 60 training=1 prediction=0
        peer 60 escaip 1M "$out/batch/escaip-1M" "$device" --steps 2 --predictions 2
        return
    fi
    for pair in escaip:6M proteina:60M voxmol:111M; do
        model=${pair%:*} size=${pair#*:}
        [ -d "$out/batch/$model-$size" ] || continue
        peer 40 $model $size "$out/batch/$model-$size" "$device" --steps 5 --predictions 5
    done
    for pair in escaip:6M proteina:60M voxmol:111M; do
        model=${pair%:*} size=${pair#*:}
        [ -d "$out/batch/$model-$size" ] || continue
        peer 90 $model $size "$out/batch/$model-$size" "$device" --steps 5 --predictions 5 --compile
        peer 40 $model $size "$out/batch/$model-$size" "$device" --steps 5 --predictions 0 --bf16
    done
}
stage_curves() {
    local steps=40 samples=8
    [ "${QUICK:-}" ] && steps=4 samples=2
    for model in escaip proteina voxmol; do
        for place in "$device" cpu; do
            name=$model-${place//:/}
            timeout -k 5 90 "$program" -q run --plugin-dir "$pack/plugins" --plugins $model --device "$place" --set model.size=nano \
                --set train.steps=$steps --set measure.samples=$samples --set 'measure.weights=["raw"]' --set measure.points_per_decade=4 \
                --out "$out/curves/$name" > "$out/log/$name.log" 2>&1 &
        done
    done
    wait
    python3 "$pack/curves.py" "$out/curves" "${device//:/}" > "$out/log/curves.txt"
    tail -n 6 "$out/log/curves.txt" >> "$out/curves.csv"
}
stage_check() {
    "$program" check --help 2> /dev/null | grep -q -- --device || { say "check: the program has no --device"; return; }
    for model in escaip proteina voxmol; do limit 60 check "$program" check --plugin-dir "$pack/plugins" --device "$device" $model; done
}
stage_large() {
    [ "${QUICK:-}" ] && return
    time_one proteina 400M 8 256 bf16+f32 60 training=3 prediction=0
    time_one escaip 6M 256 40 f32+f32 60 training=5 prediction=3
}
if [ -z "${CUDA_PATH:-}" ] && [ "$device" != cpu ] && [ ! -d /usr/local/cuda/include ]; then
    found=$(python3 -c 'import nvidia, os; print([os.path.join(d, "cu13") for d in nvidia.__path__ if os.path.isdir(os.path.join(d, "cu13", "include"))][0])' 2> /dev/null) && export CUDA_PATH="$found" LD_LIBRARY_PATH="$found/lib:${LD_LIBRARY_PATH:-}"
fi
[ $# -gt 0 ] || set -- parity escaip proteina voxmol machine peers curves bf16 large check
for stage; do
    [ -e "$out/$stage.done" ] && { say "$stage: done before"; continue; }
    say "== $stage"
    "stage_$stage" && touch "$out/$stage.done"
done
find "$out" -name '*.csv' -maxdepth 1 -exec sh -c 'echo "-- $1"; tail -n 60 "$1"' _ {} \;
[ -d "$out/cache" ] && tar -C "$out" -czf "$out/cache.tar.gz" cache && [ "$(stat -c %s "$out/cache.tar.gz")" -gt 15000000 ] && rm "$out/cache.tar.gz"
tar -C "$out" --exclude ./cache.tar.gz --exclude ./cache --exclude ./batch --exclude ./results.tar.gz --exclude '*/checkpoints' -czf "$out/results.tar.gz" .
