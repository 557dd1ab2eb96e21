#!/usr/bin/env bash
# The way of a GPU machine through everything that is asked of it, in stages: stages.sh PACK DEVICE OUT [STAGE ...]
#
# PACK is the unpacked folder (bin/, plugins/, peers), DEVICE cpu or cuda:N, OUT takes results at once. A stage that left OUT/NAME.done is
# skipped; without names all run, the cheapest and most telling first:
#   parity escaip proteina voxmol profile machine curves large check
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
    local model precision jobs=() code=0 curves=
    if [ "${OVERLAP:-}" ]; then
        queue_escaip
        queue_peers
        stage_curves &
        curves=$!
    fi
    for model in escaip proteina voxmol; do
        for precision in f64 f32; do
            limit 120 "parity-$model-$precision" "$trial" parity "$(library $model)" "$device" precisions=$precision samples=2 \
                points=$([ $model = voxmol ] && echo 16 || echo 24) &
            jobs+=($!)
        done
    done
    for model in escaip proteina voxmol; do
        # The kernels of our own that are off by default.
        EQUIVBENCH_CUDA_KERNELS=1 limit 120 "parity-$model-kernels" "$trial" parity "$(library $model)" "$device" precisions=f32 samples=2 \
            points=$([ $model = voxmol ] && echo 16 || echo 24) &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || code=1; done
    say "parity done"
    [ -z "$curves" ] || wait "$curves"
    cat "$out"/parity-*.csv
    return $code
}
# turn LOG LIMIT COMMAND...: starts a program that compiles at once and waits for its turn to be timed; `turns` gives the turns.
declare -a turn_pids=() turn_gates=() turn_names=()
turn() {
    local log=$1 seconds=$2 gate
    shift 2
    gate=$(mktemp -u "$out/gate.XXXXXX")
    GATE=$gate timeout -k 5 "$seconds" "$@" >> "$out/$log.csv" 2>> "$out/log/$log.err" &
    turn_pids+=($!) turn_gates+=("$gate") turn_names+=("$log: ${*:1}")
}
turns() {
    local i code all=0 at from=$SECONDS
    for i in "${!turn_pids[@]}"; do
        while [ ! -e "${turn_gates[i]}.ready" ] && kill -0 "${turn_pids[i]}" 2> /dev/null; do
            # Who is late would disturb the others.
            ((SECONDS - from < ${PATIENCE:-50})) || { say "late: ${turn_names[i]}"; kill "${turn_pids[i]}"; break; }
            sleep 0.1
        done
    done
    say "ready: ${#turn_pids[@]}"
    [ "$device" = cpu ] || nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader >> "$out/log/memory.txt"
    for i in "${!turn_pids[@]}"; do
        at=$SECONDS code=0
        touch "${turn_gates[i]}"
        wait "${turn_pids[i]}" || { code=$? all=1; }
        say "pid ${turn_pids[i]} exit $code in $((SECONDS - at)) s: ${turn_names[i]}" | sed "s#$pack/##g; s#$out/##g" | cut -c1-170 | tee -a "$out/log/stages.txt"
        [ "$code" = 0 ] || tail -n 2 "$out/log/${turn_names[i]%%:*}.err" | cut -c1-300
    done
    rm -f "$out"/gate.*
    turn_pids=() turn_gates=() turn_names=()
    return $all
}
# ours MODEL SIZE SAMPLES POINTS PRECISION [KEY=VALUE ...] and peer MODEL SIZE [OPTION ...]: a turn each.
ours() { turn time 200 "$trial" time "$(library "$1")" "$device" size="$2" samples="$3" points="$4" precision="$5" "${@:6}"; }
with_tf32() { EQUIVBENCH_CUDA_ALLOW=tf32 "$@"; }
with_kernels() { EQUIVBENCH_CUDA_KERNELS=1 "$@"; }
peer() { turn peers 200 python3 "$pack/peer.py" "$1" "$2" "$out/batch/$1" "$device" --steps 10 --predictions 5 "${@:3}"; }
batch() { "$trial" time "$(library "$1")" cpu size="$2" samples="$3" points="$4" training=0 prediction=0 batch="$out/batch/$1" > /dev/null; }
# profile MODEL SIZE SAMPLES POINTS PRECISION: what every kernel of a step took, by events of the device.
profile() {
    [ "$device" = cpu ] && return
    CUBECL_DEBUG_OPTION=profile CUBECL_DEBUG_LOG="$out/log/profile-$1-$5.log" limit 60 profile "$trial" time "$(library "$1")" "$device" \
        size="$2" samples="$3" points="$4" precision="$5" training=1 prediction=0
    grep '^|' "$out/log/profile-$1-$5.log" > "$out/log/profile-$1-$5.txt"
    rm -f "$out/log/profile-$1-$5.log"
}
extent() {
    if [ "${QUICK:-}" ]; then
        case $1 in escaip) echo 1M 2 12 ;; proteina) echo nano 2 12 ;; voxmol) echo nano 2 16 ;; esac
    else
        case $1 in escaip) echo 6M 64 40 ;; proteina) echo 60M 12 256 ;; voxmol) echo 111M 4 64 ;; esac
    fi
}
# They compile beside the parity programs.
queue_escaip() {
    local e
    e=$(extent escaip)
    batch escaip $e
    ours escaip $e f32
    ours escaip $e bf16 prediction=0
    with_tf32 ours escaip $e f32 prediction=0
    with_kernels ours escaip $e f32
    peer escaip ${e%% *}
    [ "${QUICK:-}" ] && return
    peer escaip ${e%% *} --compile --predictions 0
    peer escaip ${e%% *} --compile --tf32 --predictions 0
}
queue_peers() {
    [ "${QUICK:-}" ] && return
    batch proteina $(extent proteina)
    batch voxmol $(extent voxmol)
    peer proteina 60M
    peer proteina 60M --compile --predictions 0
    peer proteina 60M --compile --bf16 --predictions 0
    peer voxmol 111M
    peer voxmol 111M --tf32 --predictions 0
}
stage_escaip() {
    ((${#turn_pids[@]})) || { queue_escaip; queue_peers; }
    turns
}
stage_proteina() {
    local e
    e=$(extent proteina)
    ours proteina $e f32
    ours proteina $e bf16 prediction=0
    with_tf32 ours proteina $e f32 prediction=0
    turns
}
stage_voxmol() {
    local e
    e=$(extent voxmol)
    ours voxmol $e f32 training=3 prediction=3
    ours voxmol $e bf16 training=3 prediction=0
    turns
}
stage_profile() { for model in escaip voxmol proteina; do profile $model $(extent $model) f32; done; }
stage_large() {
    [ "${QUICK:-}" ] && return
    ours proteina 400M 8 256 bf16 training=3 prediction=0
    ours voxmol 111M 16 64 bf16 training=3 prediction=0
    turns
}
stage_curves() {
    local steps=40 samples=8
    [ "${QUICK:-}" ] && steps=4 samples=2
    for model in escaip proteina voxmol; do
        for place in ${PLACES:-$device cpu}; do
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
if [ -z "${CUDA_PATH:-}" ] && [ "$device" != cpu ] && [ ! -d /usr/local/cuda/include ]; then
    found=$(python3 -c 'import nvidia, os; print([os.path.join(d, "cu13") for d in nvidia.__path__ if os.path.isdir(os.path.join(d, "cu13", "include"))][0])' 2> /dev/null) && export CUDA_PATH="$found" LD_LIBRARY_PATH="$found/lib:${LD_LIBRARY_PATH:-}"
fi
[ $# -gt 0 ] || set -- parity escaip proteina voxmol profile machine curves large check
for stage; do
    [ -e "$out/$stage.done" ] && { say "$stage: done before"; continue; }
    say "== $stage"
    "stage_$stage" && touch "$out/$stage.done"
done
find "$out" -name '*.csv' -maxdepth 1 -exec sh -c 'echo "-- $1"; tail -n 60 "$1"' _ {} \;
[ -d "$out/cache" ] && tar -C "$out" -czf "$out/cache.tar.gz" cache && [ "$(stat -c %s "$out/cache.tar.gz")" -gt 15000000 ] && rm "$out/cache.tar.gz"
tar -C "$out" --exclude ./cache.tar.gz --exclude ./cache --exclude ./batch --exclude ./results.tar.gz --exclude '*/checkpoints' -czf "$out/results.tar.gz" .
