#!/usr/bin/env bash
# Builds with CUDA, packs what a GPU machine needs into one file, runs measure.sh there and brings the tables back.
#
#   benchmarks/gpu/run.sh                 on this machine (it has the GPU)
#   benchmarks/gpu/run.sh --ssh HOST      on another one, over ssh; it needs CUDA (libcuda, NVRTC, headers) and no Rust
#   benchmarks/gpu/run.sh --pack          stops after target/gpu/equivbench-gpu.tar.xz, for machines reached in other ways:
#                                         there, tar -xf equivbench-gpu.tar.xz && equivbench-gpu/measure.sh DEVICE OUT
#   benchmarks/gpu/run.sh --device cpu    without CUDA: the same way through, to try it out
#
# Further options: --device cuda:N [cuda:0], --out DIR [target/gpu/results], --steps N [60], --quick (smallest sizes only).
# The pack may have 64 MiB at most; a larger one is an error. A first CUDA build takes about half an hour on two cores.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
device=cuda:0 where=local host="" out="" steps=60 quick=""

usage() { sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
fail() { echo "run.sh: $*" >&2; exit 2; }

while (($#)); do
    case $1 in
        --ssh) [[ $# -ge 2 && -n $2 ]] || fail "--ssh needs a host"; where=ssh host=$2; shift ;;
        --pack) where=pack ;;
        --device) [[ $# -ge 2 ]] || fail "--device needs cuda:N or cpu"; device=$2; shift ;;
        --out) [[ $# -ge 2 && -n $2 ]] || fail "--out needs a folder"; out=$2; shift ;;
        --steps) [[ $# -ge 2 && $2 =~ ^[1-9][0-9]+$ && $2 -gt 10 ]] || fail "--steps needs a number above 10: the first ten are not timed"; steps=$2; shift ;;
        --quick) quick=quick ;;
        -h | --help) usage; exit ;;
        *) usage >&2; fail "$1 is not an option" ;;
    esac
    shift
done
[[ $device =~ ^(cpu|cuda:[0-9]+)$ ]] || fail "--device $device: use cuda:N or cpu"
for tool in cargo tar xz; do command -v "$tool" > /dev/null || fail "$tool is needed and was not found"; done

target=${CARGO_TARGET_DIR:-$root/target}
work=$target/gpu
out=${out:-$work/results}
pack=$work/equivbench-gpu
without=()
[[ $device != cpu ]] || without=(--cpu)

echo "== build and pack" >&2
(cd "$root" && cargo xtask cuda ${without[@]+"${without[@]}"} >&2) || fail "cargo xtask cuda failed"

case $where in
    pack) exit ;;
    local)
        echo "== run here on $device" >&2
        "$pack/measure.sh" "$device" "$out" "$steps" $quick
        ;;
    *)
        echo "== run on $host, $device" >&2
        folder=$(ssh "$host" 'mktemp -d')
        trap 'ssh "$host" "rm -rf '"'$folder'"'"' EXIT
        ssh "$host" "tar -C '$folder' -xJf -" < "$pack.tar.xz"
        # What was measured comes back also where the end was not reached.
        code=0
        ssh "$host" "'$folder/equivbench-gpu/measure.sh' '$device' '$folder/results' '$steps' $quick" || code=$?
        mkdir -p "$out"
        ssh "$host" "tar -C '$folder/results' --exclude ./cache -c ." | tar -C "$out" -x
        ((code == 0)) || fail "measure.sh ended with $code on $host; what it wrote lies in $out"
        ;;
esac
echo "== tables in $out" >&2
