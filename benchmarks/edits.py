"""How fast the edits of two checkpoints of the paper's size are analysed, and in how much memory.

    python benchmarks/edits.py --scratch /somewhere/with/17/GB

Two checkpoints of Qwen3-4B's shape (random weights, bfloat16, sharded, 8 GB each) are written once, a block at a time.
`after` is `before` plus normal noise of 1.2e-5, rounded to bfloat16: about 86 % of the entries come out unchanged. Then
three ways to go through both are timed in turn, each reading the same bytes, after both have been read once:

* `plain`: reading, and one float32 subtraction, chunk by chunk, as `Delta.rows` does it;
* `bare`: the same in larger chunks and into memory kept for it, about the least that can be done; shown beside;
* `analyse`: all of `edits.analyse`.

All use one thread. The ratio is of median wall times, plain to analyse; processor times are beside it, since on a busy
machine, and where the page cache does not hold both checkpoints, the wall's are those of waiting as well.

Peak memory is that of a fresh process that does nothing but the analysis: its high-water mark of resident memory
(`VmHWM`), libraries and file pages mapped by it included, the system's page cache not. (`ru_maxrss` would start at what the
starting process held.) For comparison both models are loaded by `from_pretrained` and subtracted, at a size where that fits
(loading alone maps the files, and nothing is resident until it is read).

Exits with status 1 if the analysis is slower than `--limit` of plain, or takes more than `--memory-limit`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config

from crossdomain import edits, paths, provenance
from crossdomain.progress import Progress
from crossdomain.training import quiet
from crossdomain.weights import INDEX, Delta, Weights, chunks

HIDDEN, MLP, QUERIES, KEYS, VOCABULARY = 2560, 9728, 32 * 128, 8 * 128, 151_936
SHARD = 4.5e9  # bytes
BLOCK = 2**22  # entries written at a time
SPREAD, NOISE = 0.02, 1.2e-5  # standard deviations of the weights, and of the update before it is rounded
SIDES = ("before", "after")
COMPARED_LAYERS = 4
WORKERS = {
    "analyse": "from crossdomain.edits import analyse\nfrom crossdomain.weights import Weights\n"
    "work = lambda: analyse(*map(Weights, folders))",
    "from_pretrained": "from transformers import AutoModelForCausalLM\n"
    "load = lambda folder: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()\n"
    "work = lambda: [(b.float() - a.float()).norm() for a, b in zip(*(load(f).values() for f in folders))]",
}
WORKER = """
import json, sys, time, torch
torch.set_num_threads(1)
folders = sys.argv[1:]
{setup}
start, cpu = time.perf_counter(), time.process_time()
kept = work()
seconds = time.perf_counter() - start, time.process_time() - cpu
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({{"wall": seconds[0], "cpu": seconds[1], "peak_gib": peak / 2**20}}))
"""


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """The parameters of a Qwen3 model with tied embeddings."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        found |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "self_attn.q_proj": (QUERIES, HIDDEN),
                "self_attn.k_proj": (KEYS, HIDDEN),
                "self_attn.v_proj": (KEYS, HIDDEN),
                "self_attn.o_proj": (HIDDEN, QUERIES),
                "self_attn.q_norm": (128,),
                "self_attn.k_norm": (128,),
                "mlp.gate_proj": (MLP, HIDDEN),
                "mlp.up_proj": (MLP, HIDDEN),
                "mlp.down_proj": (HIDDEN, MLP),
                "input_layernorm": (HIDDEN,),
                "post_attention_layernorm": (HIDDEN,),
            }.items()
        }
    return found | {"model.norm.weight": (HIDDEN,)}


def shards(layers: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """The parameters in order, in parts of at most `SHARD` bytes of bfloat16."""
    part: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes(layers).items():
        if part and 2 * sum(map(math.prod, [*part.values(), shape])) > SHARD:
            yield part
            part = {}
        part[name] = shape
    yield part


def checkpoints(scratch: Path, layers: int) -> list[Path]:
    """The folders of before and after, written unless an earlier run has finished them."""
    folders = [scratch / f"{layers}-layers" / side for side in SIDES]
    if all((folder / INDEX).is_file() for folder in folders):
        return folders
    parts = list(shards(layers))
    needed = 4 * sum(math.prod(shape) for part in parts for shape in part.values())
    scratch.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(scratch).free) < 1.05 * needed:
        sys.exit(
            f"{scratch}: {needed / 1e9:.1f} GB are needed for {layers} layers, {free / 1e9:.1f} GB are free; name another "
            "folder with --scratch or take fewer --layers"
        )
    random = torch.Generator().manual_seed(0)
    maps: list[dict[str, str]] = [{}, {}]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        config(layers).save_pretrained(folder)
    with Progress(f"writing {needed / 1e9:.1f} GB", len(parts)) as progress:
        for number, part in enumerate(parts, start=1):
            files = [folder / f"model-{number:05d}-of-{len(parts):05d}.safetensors" for folder in folders]
            write_shard(files, part, random)
            for weight_map, file in zip(maps, files, strict=True):
                weight_map.update(dict.fromkeys(part, file.name))
            progress.to(number)
    for folder, weight_map in zip(folders, maps, strict=True):  # last, so that it says all is there
        (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": needed // 2}, "weight_map": weight_map}))
    return folders


def write_shard(files: list[Path], part: dict[str, tuple[int, ...]], random: torch.Generator) -> None:
    """The same shard of before and after, a block at a time, in the format of safetensors."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in part.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}  # type: ignore[dict-item]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with files[0].open("wb") as first, files[1].open("wb") as second:
        for stream in (first, second):
            stream.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, end // 2, BLOCK):
            size = min(BLOCK, end // 2 - start)
            before = torch.randn(size, generator=random).mul_(SPREAD).bfloat16()
            after = torch.randn(size, generator=random).mul_(NOISE).add_(before).bfloat16()
            for stream, values in ((first, before), (second, after)):
                stream.write(values.view(torch.uint8).numpy().data)


def config(layers: int) -> Qwen3Config:
    """The model's configuration."""
    return Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )


def plain(delta: Delta) -> None:
    """Reading and one float32 subtraction."""
    for name in delta.names:
        for start, stop in chunks(delta, name):
            delta.rows(name, start, stop)


def bare(delta: Delta) -> None:
    """The same into memory that is kept."""
    memory = torch.empty(2, edits.BLOCK)
    for name in delta.names:
        for start, stop in chunks(delta, name, edits.READ):
            old, new = (side.reshape(-1) for side in delta.pair(name, start, stop))
            for first in range(0, len(old), edits.BLOCK):
                block = slice(first, min(first + edits.BLOCK, len(old)))
                before, after = memory[:, : block.stop - first]
                after.copy_(new[block]).sub_(before.copy_(old[block]))


def measure(folders: list[Path], rounds: int) -> dict[str, Any]:
    """Seconds of the three, in turn, and the shares of unchanged entries."""
    sides = [Weights(folder) for folder in folders]
    delta = Delta(*sides)
    entries = sum(math.prod(delta.shape(name)) for name in delta.names)
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(delta),
        "bare": lambda: bare(delta),
        "analyse": lambda: edits.analyse(*sides),
    }
    laps: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    bare(delta)  # fills the page cache as far as it goes
    for turn in range(rounds):
        for way in islice([*ways, *ways], turn % 3, turn % 3 + 3):  # none is always first after another
            wall, cpu = time.perf_counter(), time.process_time()
            ways[way]()
            laps[way].append((time.perf_counter() - wall, time.process_time() - cpu))
    seconds = {
        clock: {way: statistics.median(lap[i] for lap in laps[way]) for way in ways}
        for i, clock in enumerate(("wall", "cpu"))
    }
    shares = edits.summarise(edits.analyse(*sides).shares).query("kind == 'absolute' and threshold == 0")
    return {
        "parameters": entries,
        "rounds": rounds,
        "laps": laps,
        "seconds": seconds,
        "gb_per_second": {way: 4 * entries / 1e9 / seconds["wall"][way] for way in ways},
        "ratio": seconds["wall"]["plain"] / seconds["wall"]["analyse"],
        "cpu_ratio": seconds["cpu"]["plain"] / seconds["cpu"]["analyse"],
        "bare_ratio": seconds["wall"]["bare"] / seconds["wall"]["analyse"],
        "bare_cpu_ratio": seconds["cpu"]["bare"] / seconds["cpu"]["analyse"],
        "unchanged": float(shares["share"].iloc[0]),
        "load_average": os.getloadavg()[0],
    }


def fresh(worker: str, folders: list[Path]) -> dict[str, float]:
    """Seconds and peak memory of a fresh process that does one thing."""
    command = [sys.executable, "-c", WORKER.format(setup=WORKERS[worker]), *map(str, folders)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    )
    return found


def show(report: dict[str, Any]) -> None:
    """Print the report."""
    timed = report["timed"]
    print(f"\n{timed['parameters'] / 1e9:.2f} billion parameters, {timed['unchanged']:.1%} of the entries unchanged")
    print(f"{'median of ' + str(timed['rounds']) + ' rounds':20}{'wall s':>10}{'GB/s':>8}{'processor s':>14}")
    for way, wall in timed["seconds"]["wall"].items():
        print(f"{way:20}{wall:10.2f}{timed['gb_per_second'][way]:8.2f}{timed['seconds']['cpu'][way]:14.2f}")
    print(f"throughput of analyse over plain: {timed['ratio']:.3f} (processor time {timed['cpu_ratio']:.3f})")
    print(f"                    … over bare: {timed['bare_ratio']:.3f} (processor time {timed['bare_cpu_ratio']:.3f})")
    print(f"peak memory of the analysis alone: {report['memory']['peak_gib']:.2f} GiB")
    for worker, found in report["compared"].items():
        peak, wall = found["peak_gib"], found["wall"]
        print(f"{report['compared_layers']} layers, both models, {worker}: {peak:.2f} GiB, {wall:.1f} s")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    scratch = Path(tempfile.gettempdir()) / "crossdomain-edits"
    parser.add_argument(
        "--scratch", type=Path, default=scratch, help="folder for the checkpoints, kept for the next run"
    )
    parser.add_argument("--layers", type=int, default=36, help="fewer for a quick look")
    parser.add_argument("--rounds", type=int, default=3, help="of all three in turn")
    parser.add_argument(
        "--limit", type=float, default=0.5, help="the least throughput over plain that is not a failure"
    )
    parser.add_argument("--memory-limit", type=float, default=2.0, help="the most GiB that is not a failure")
    parser.add_argument("--output", type=Path, default=paths.runs() / "benchmarks" / "edits.json", help="report")
    options = parser.parse_args()
    if options.layers < 1 or options.rounds < 1:
        parser.error("--layers and --rounds must be at least 1")
    return options


def main() -> int:
    """Write the checkpoints, measure, print and write the report; the exit status."""
    options = arguments()
    quiet()
    torch.set_num_threads(1)
    folders = checkpoints(options.scratch, options.layers)
    compared_layers = min(COMPARED_LAYERS, options.layers)
    small = checkpoints(options.scratch, compared_layers)
    report: dict[str, Any] = {
        "benchmark": "edits of two checkpoints: the analysis against reading them",
        "limit": options.limit,
        "memory_limit_gib": options.memory_limit,
        "layers": options.layers,
        "memory": fresh("analyse", folders),
        "compared_layers": compared_layers,
        "compared": {worker: fresh(worker, small) for worker in WORKERS},
        "timed": measure(folders, options.rounds),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
        "commit": provenance.git_commit(),
    }
    fast = report["timed"]["ratio"] >= options.limit
    lean = report["memory"]["peak_gib"] <= options.memory_limit
    report["passed"] = fast and lean
    show(report)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1))
    print(
        f"\n{'fast enough' if fast else 'TOO SLOW'} (at least {options.limit:g} of plain), "
        f"{'lean enough' if lean else 'TOO LARGE'} (at most {options.memory_limit:g} GiB); report in {options.output}"
    )
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
