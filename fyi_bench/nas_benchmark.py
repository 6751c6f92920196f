"""How much faster the networks of the space train on this CPU with the tuned allocator and in bf16: prints ratios.

`python -m fyi_bench.nas_benchmark [NETWORKS]`. One thread, training steps of 25 images (the batch of the quick
protocol). Every setting is timed in a process of its own, as an allocator cannot be changed back; the processes take
turns, and each ratio is the median over the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

NETWORKS, ROUNDS, BATCH, STEPS = 12, 5, 25, 3
BASE = ("fp32", "default")
SETTINGS = (BASE, ("fp32", "tuned"), ("bf16", "default"), ("bf16", "tuned"))


def seconds_of_steps(precision: str, networks: int) -> dict[str, float]:
    """Seconds of the fastest of a few training steps, for each network of a stratified subset."""
    import torch

    import search_space
    from downstream.nas import architecture_name
    from fyi_bench import rng
    from search_space.space720 import subset

    torch.set_num_threads(1)
    x = torch.randn(BATCH, 3, 32, 32, generator=rng.stream(0, "benchmark"))
    y = torch.zeros(BATCH, dtype=torch.int64)
    found = {}
    for point in subset(networks):
        network = search_space.build(architecture_name(point), 3, 32, 10, rng.stream(0, "benchmark network"))
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        times = []
        for _ in range(STEPS):
            began = time.perf_counter()
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = network(x)
            torch.nn.functional.cross_entropy(logits.float(), y).backward()
            optimiser.step()
            times.append(time.perf_counter() - began)
        found[point.name] = min(times)
    return found


def _timed(precision: str, allocator: str, networks: int) -> dict[str, float]:
    command = [sys.executable, "-m", "fyi_bench.nas_benchmark", precision, allocator, str(networks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def compare(networks: int) -> None:
    """Print how many times faster than fp32 with the default allocator each setting is, network by network."""
    rounds = [{setting: _timed(*setting, networks) for setting in SETTINGS} for _ in range(ROUNDS)]
    others = SETTINGS[1:]
    print(f"{'one thread, steps of ' + str(BATCH) + ' images':34s}" + "".join(f"{' '.join(s):>16s}" for s in others))
    names = [*rounds[0][BASE], "all together"]
    for name in names:
        cells = []
        for setting in others:
            ratios = [_of(one[BASE], name) / _of(one[setting], name) for one in rounds]
            cells.append(f"{statistics.median(ratios):16.2f}")
        print(f"{name:34s}" + "".join(cells))


def _of(times: dict[str, float], name: str) -> float:
    return times[name] if name in times else sum(times.values())


def main(arguments: list[str]) -> None:
    """Compare, or time one setting as a process of the comparison."""
    if len(arguments) < len(("precision", "allocator", "networks")):
        compare(int(arguments[0]) if arguments else NETWORKS)
        return
    from fyi_bench.runtime import tune_allocator

    precision, allocator, networks = arguments
    if allocator == "tuned":
        tune_allocator()
    print(json.dumps(seconds_of_steps(precision, int(networks))))


if __name__ == "__main__":
    main(sys.argv[1:])
