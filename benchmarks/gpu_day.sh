#!/usr/bin/env bash
# Everything that is to be known of a GPU lent for ten minutes, in under nine: benchmarks/gpu_day.sh OUT [PACKED…]
#
# OUT: folder for what is found, a few files within 60 MB. PACKED: folders with the parts of CIFAR-10 that
# `python -m benchmarks.gpu_day pack --out FOLDER` wrote; without one the data set is looked for in FYI_BENCH_DATA.
# Needs python3 with torch, torchvision, numpy, scipy and Pillow, nothing else. Environment:
#   PYTHON, DEVICE (cuda), WORK (a folder for the store, kept if it exists: the next lease goes on),
#   SECONDS_CHECK, SECONDS_RUNS, SECONDS_BENCH (110, 300, 90), TINY=1 (try it out: minutes on a CPU).
set -uo pipefail
out=${1:?usage: gpu_day.sh OUT [PACKED…]}
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3} device=${DEVICE:-cuda} work=${WORK:-${TMPDIR:-/tmp}/fyi-bench-gpu-day}
mkdir -p "$out" "$work"
out=$(cd "$out" && pwd) work=$(cd "$work" && pwd)
packed=()
for folder in "$@"; do packed+=("$(cd "$folder" && pwd)"); done
cd "$root" || exit 2

export PYTHONPATH=$root:$root/tests PYTHONUNBUFFERED=1 FYI_BENCH_CACHE=$work/cache
"$python" -c "import safetensors" 2>/dev/null || PYTHONPATH=$root/benchmarks/stand_ins:$PYTHONPATH
tiny=() && [[ -n ${TINY:-} ]] && tiny=(--tiny)
status=0

part() { # part NAME SECONDS WORDS…: a process of its own, so that one that breaks the device harms no other
    local name=$1 seconds=$2
    shift 2
    echo "== $name, $seconds s"
    timeout --kill-after 5 $((seconds + 20)) "$python" -m "$@" --budget "${seconds}s" --device "$device"
    local code=$?
    echo "== $name ended with $code"
    [[ $code == 0 || $code == 3 ]] || status=1 # 3: stopped in time
}

{
    part check "${SECONDS_CHECK:-110}" benchmarks.gpu_day check --out "$out" "${tiny[@]}"
    part runs "${SECONDS_RUNS:-300}" benchmarks.gpu_day runs --out "$out" --store "$work/store" \
        ${packed[@]+--packed "${packed[@]}"} "${tiny[@]}"
    part bench "${SECONDS_BENCH:-90}" benchmarks jobs --store "$work" \
        $([[ -n ${TINY:-} ]] && echo "--only retrain --ipc 1 --dataset cifar10 --repeats 1" || echo "--repeats 3")
    [[ -d $work/store ]] && tar -czf "$out/store.tar.gz" -C "$work" store
    cp "$work"/bench/bench.{md,json} "$out/" 2>/dev/null
    ls -l "$out"
} > >(tee "$out/log.txt") 2>&1
wait
exit $status
