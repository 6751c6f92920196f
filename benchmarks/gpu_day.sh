#!/usr/bin/env bash
# Everything that is to be known of a GPU lent for ten minutes: benchmarks/gpu_day.sh OUT [PACKED…]
#
# OUT: folder for what is found, a few files within 60 MB. PACKED: folders with the parts of CIFAR-10 that
# `python -m benchmarks.gpu_day pack --out FOLDER` wrote; without one the data set is looked for in FYI_BENCH_DATA.
# Needs python3 with torch, torchvision, numpy, scipy and Pillow, nothing else. Environment:
#   PYTHON, DEVICE (cuda), WORK (a folder for the store, kept if it exists: the next lease goes on),
#   PARTS (check runs bench; those joined by + run side by side),
#   SECONDS_CHECK, SECONDS_RUNS, SECONDS_BENCH, SECONDS_COMMANDS (100, 280, 80, 300; a part may take 25 more to stop, so
#   that the first three end within nine minutes), BENCH (options of the benchmark),
#   COMMANDS, a file for the part `commands`: words of a fyi-bench command a line, AT_ONCE (8) of them at a time; these
#   need what `pip install fyi-bench` brings, but no Avalanche,
#   TINY=1 (try it out: minutes on a CPU).
set -uo pipefail
out=${1:?usage: gpu_day.sh OUT [PACKED…]}
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3} device=${DEVICE:-cuda} work=${WORK:-${TMPDIR:-/tmp}/fyi-bench-gpu-day}
mkdir -p "$out" "$work/state"
out=$(cd "$out" && pwd) work=$(cd "$work" && pwd)
packed=()
for folder in "$@"; do packed+=("$(cd "$folder" && pwd)"); done
[[ -n ${COMMANDS:-} ]] && COMMANDS=$(realpath "$COMMANDS")
cd "$root" || exit 2

export PYTHONPATH=$root:$root/tests${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 FYI_BENCH_CACHE=$work/cache
export python device work out
"$python" -c "import safetensors" 2>/dev/null || PYTHONPATH=$root/benchmarks/stand_ins:$PYTHONPATH
tiny=() && [[ -n ${TINY:-} ]] && tiny=(--tiny)
rm -f "$work"/state/*

part() { # part NAME SECONDS WORDS…: a process of its own, so that one that breaks the device harms no other
    local name=$1 seconds=$2
    shift 2
    echo "== $name, $seconds s"
    timeout --kill-after 5 $((seconds + 20)) "$python" -m "$@" --budget "${seconds}s" --device "$device"
    local code=$?
    echo "== $name ended with $code"
    [[ $code == 0 || $code == 3 ]] || touch "$work/state/failed" # 3: stopped in time
}

check() { part check "${SECONDS_CHECK:-100}" benchmarks.gpu_day check --out "$out" ${tiny[@]+"${tiny[@]}"}; }

runs() {
    part runs "${SECONDS_RUNS:-280}" benchmarks.gpu_day runs --out "$out" --store "$work/store" \
        ${packed[@]+--packed "${packed[@]}"} ${tiny[@]+"${tiny[@]}"}
}

bench() {
    # shellcheck disable=SC2086
    part bench "${SECONDS_BENCH:-80}" benchmarks jobs --store "$work" \
        ${BENCH:-$([[ -n ${TINY:-} ]] && echo "--only retrain --ipc 1 --dataset cifar10 --repeats 1" || echo "--repeats 3")}
    cp "$work"/bench/bench.{md,json} "$out/" 2>/dev/null
}

commands() {
    export end=$((SECONDS + ${SECONDS_COMMANDS:-300}))
    if ((${#packed[@]})); then
        export FYI_BENCH_DATA=$work/data
        "$python" -m benchmarks.gpu_day unpack --packed "${packed[@]}" --out "$work/data"
        "$python" -c "from fyi_bench.data import load_dataset; print(load_dataset('cifar10'))" # decoded once, for all
    fi
    export -f one
    export began=$(date +%s) seconds=$((end - SECONDS))
    grep -Ev '^ *(#|$)' "${COMMANDS:?a file with a command a line}" | xargs -d '\n' -P "${AT_ONCE:-8}" -I{} bash -c 'one "$1"' _ {}
    "$python" -m fyi_bench runs --where measure=accuracy task=distill --format csv --store "$work/store" > "$out/rows.csv"
}

one() { # one [NAME=VALUE…] WORDS: one command of fyi-bench, as far as the time goes
    local begin left name words=$1 settings=
    begin=$(date +%s)
    left=$((began + seconds - begin))
    ((left > 15)) || { echo "not begun: $1" && return; }
    name=$(tr -cs 'a-zA-Z0-9.\n' - <<< "$1" | cut -c1-80)
    mkdir -p "$work/logs"
    while [[ $words =~ ^([A-Z_]+=[^\ ]+)\ (.*) ]]; do settings+="${BASH_REMATCH[1]} " words=${BASH_REMATCH[2]}; done
    eval "env $settings timeout --kill-after 5 $((left + 20)) $python -m fyi_bench $words --device $device --store $work/store --threads 1 --yes \
        --quiet --budget ${left}s" > "$work/logs/$name.txt" 2>&1
    local code=$?
    echo "$code after $(($(date +%s) - begin)) s: $1"
    [[ $code == 0 || $code == 3 ]] || { touch "$work/state/failed" && tail -n 4 "$work/logs/$name.txt"; }
}

{
    for group in ${PARTS:-check runs bench}; do
        started=()
        for name in ${group//+/ }; do "$name" & started+=($!); done
        wait "${started[@]}"
    done
    # all records, sets of one image a class, finished or begun, the smallest files first; what is larger or too much
    # does not travel, and pieces are small
    [[ -d $work/store ]] && (cd "$work" && find store -type f -size -400k -printf '%s %p\n' | sort -n |
        awk -v most="${MOST_BYTES:-55000000}" '(sum += $1) <= most { print substr($0, index($0, " ") + 1); next }
            { left++ } END { if (left) print left " files of the store left out, too much to travel" > "/dev/stderr" }' |
        tar -cz -T - | split -d -a 1 -b 15m - "$out/store.tar.gz.")
    [[ -d $work/logs ]] && tar -czf "$out/logs.tar.gz" -C "$work" logs
    ls -l "$out"
} > >(tee "$out/log.txt") 2>&1
[[ ! -e $work/state/failed ]]
status=$?
sleep 0.2 # the last lines pass through tee
exit $status
