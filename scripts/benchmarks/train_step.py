"""Time one training step of mmjax beside open_clip (PyTorch) and big_vision (JAX), on the same shapes.

Every peer runs in a process and a Python of its own; they take turns step by step, so that a drift in the machine's
speed hits all alike and only one computes at a time. Prints a table and, with --output, writes JSON.

  python -m venv VT && VT/bin/pip install torch==2.13.0 numpy
  VT/bin/pip install --no-deps open_clip_torch timm
  VT/bin/pip install ftfy regex tqdm huggingface_hub safetensors pyyaml pillow
  git clone https://github.com/google-research/big_vision BV
  python scripts/benchmarks/train_step.py --shape small --batch 256 --dtype float32 \\
      --peers mmjax mmjax+remat open_clip big_vision --env open_clip=VT/bin/python --big-vision BV

A peer may run several times, under labels, with a Python or variables of its own for each: JAX beside a newer JAX,

  python scripts/benchmarks/train_step.py --peers mmjax@old mmjax@new mmjax@plain \\
      --env mmjax@old=OLD/bin/python --set mmjax@plain:XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=true

`plain` is the same network in nothing but flax.linen, with JAX as it comes: what the care in mmjax.nn is worth, where
neither PyTorch nor big_vision is at hand. --check compares the run with the claims of RESULTS.md, names each that does
not hold, and ends with status 1 if there is one:

  python scripts/benchmarks/train_step.py --check --batch 64 --cpus 0 --peers mmjax mmjax+remat plain

As root, --nice -15 --rest 0.5 runs the steps ahead of other work and then rests for half as long. On a busy machine
compare images_per_cpu_second with --cpus 0: PyTorch's threads spin while they wait for one another, so with several
of them neither its seconds nor its CPU seconds mean much beside other work.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

SHAPES = {
  "vitb32": {"image": 224, "patch": 32, "width": 768, "depth": 12, "heads": 12, "length": 77, "vocab": 49408}
  | {"text_width": 512, "text_depth": 12, "text_heads": 8, "embed": 512},
  "small": {"image": 64, "patch": 8, "width": 192, "depth": 6, "heads": 3, "length": 32, "vocab": 8192}
  | {"text_width": 192, "text_depth": 6, "text_heads": 3, "embed": 192},
  "tiny": {"image": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2, "length": 8, "vocab": 64}
  | {"text_width": 16, "text_depth": 1, "text_heads": 2, "embed": 8},
}
PEERS = ("mmjax", "mmjax+remat", "mmjax+full", "open_clip", "open_clip+checkpoint", "big_vision", "plain")
TINY = {"shape": "tiny", "batch": 8, "warmup": 1, "steps": 1, "peers": ["mmjax", "plain"]}
# Bounds of --check, from RESULTS.md, as ratios of images per CPU second: mmjax makes 1.03 to 1.53 times open_clip's
# and 1.6 times big_vision's; with remat it keeps .95 of its speed at least, in .61 to .90 of its memory.
OTHERS = ("open_clip", "big_vision", "plain")
LEAST_SPEED, LEAST_REMAT_SPEED, MOST_REMAT_MEMORY = 1.0, 0.9, 1.0
QUIET = 0.1  # a step is quiet when other processes used less of the machine


def make_data(shape: dict[str, int], batch: int) -> dict[str, Any]:
  """Random pixels and token ids; the last token is the end-of-text token (the largest id)."""
  import numpy as np

  rng = np.random.default_rng(0)
  image = rng.standard_normal((batch, shape["image"], shape["image"], 3), dtype=np.float32)
  text = rng.integers(1, shape["vocab"] - 1, (batch, shape["length"])).astype(np.int32)
  text[:, -1] = shape["vocab"] - 1
  return {"image": image, "text": text}


def _megabytes(key: str) -> float:
  with open("/proc/self/status") as f:
    return next(int(line.split()[1]) / 1024 for line in f if line.startswith(key + ":"))


def _busy_seconds() -> float:
  with open("/proc/stat") as f:
    ticks = [int(x) for x in f.readline().split()[1:9]]
  return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _timed(step: Any) -> dict[str, float]:
  """Seconds, CPU seconds, the share of the machine that others used meanwhile, and the loss."""
  busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
  loss = step()
  seconds, cpu = time.perf_counter() - start, time.process_time() - own
  others = max(0.0, (_busy_seconds() - busy - cpu) / seconds / (os.cpu_count() or 1))
  return {"seconds": seconds, "cpu_seconds": cpu, "others": others, "loss": loss}


def _set_priority(nice: int) -> None:
  for thread in os.listdir("/proc/self/task"):
    os.setpriority(os.PRIO_PROCESS, int(thread), nice)


def work(args: argparse.Namespace) -> None:
  """One peer: builds its step, then runs one for every line on standard input."""
  if args.cpus:
    os.sched_setaffinity(0, args.cpus)  # before any framework counts its threads
  import peers

  replies, sys.stdout = sys.stdout, sys.stderr
  shape = SHAPES[args.shape]
  data = make_data(shape, args.batch)
  name, _, option = args.work.partition("@")[0].partition("+")
  if name == "mmjax":
    remat = {"": "none", "remat": "dots", "full": "full"}[option]
    step = peers.build_mmjax(shape, args.dtype, data, remat=remat)
  elif name == "open_clip":
    step = peers.build_open_clip(shape, args.dtype, data, checkpoint=bool(option))
  elif name == "plain":
    step = peers.build_plain(shape, args.dtype, data)
  else:
    step = peers.build_big_vision(shape, args.dtype, data, path=args.big_vision)
  for _ in range(args.warmup):
    step()
  if args.nice:
    _set_priority(args.nice)
  with open("/proc/self/clear_refs", "w") as f:
    f.write("5")  # the peak starts over: compilation and start-up do not count
  print(json.dumps({}), file=replies, flush=True)
  for _ in sys.stdin:
    print(json.dumps({**_timed(step), "peak_mb": _megabytes("VmHWM")}), file=replies, flush=True)


def _ask(process: subprocess.Popen, name: str, *, step: bool) -> dict[str, float]:
  if step:
    process.stdin.write("step\n")
    process.stdin.flush()
  line = process.stdout.readline()
  if not line:
    raise SystemExit(f"{name} ended early: its messages are above")
  return json.loads(line)


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
  """Runs the peers in turn and returns one record for each."""
  pythons = dict(entry.split("=", 1) for entry in args.env)
  here, processes, rows = os.path.abspath(__file__), {}, {}
  for name in args.peers:
    peer = name.partition("@")[0].partition("+")[0]
    python = pythons.get(name, pythons.get(peer, sys.executable))
    own = dict(text.partition(":")[2].split("=", 1) for text in args.set if text.partition(":")[0] == name)
    command = [python, here, "--work", name, "--shape", args.shape, "--batch", str(args.batch)]
    command += ["--dtype", args.dtype, "--big-vision", args.big_vision, "--nice", str(args.nice)]
    command += ["--warmup", str(args.warmup), "--cpus", *map(str, args.cpus)]
    pipe = subprocess.PIPE
    processes[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | own)
    _ask(processes[name], name, step=False)  # one after another, so that compilations do not compete
    rows[name] = []
  for _ in range(args.steps):
    for name, process in processes.items():
      rows[name].append(_ask(process, name, step=True))
      time.sleep(args.rest * rows[name][-1]["seconds"])
  for process in processes.values():
    process.stdin.close()
    process.wait()
  return [_summary(name, rows[name], args) for name in args.peers]


def _summary(name: str, rows: list[dict[str, float]], args: argparse.Namespace) -> dict[str, Any]:
  quiet = [row for row in rows if row["others"] < QUIET]
  used = quiet if len(quiet) >= 3 else rows
  seconds = [row["seconds"] for row in used]
  median = statistics.median(seconds)
  return {
    "peer": name,
    "shape": args.shape,
    "batch": args.batch,
    "dtype": args.dtype,
    "cpus": len(args.cpus) or os.cpu_count(),
    "images_per_second": round(args.batch / median, 2),
    "images_per_second_best": round(args.batch / min(seconds), 2),
    "images_per_cpu_second": round(args.batch / statistics.median(row["cpu_seconds"] for row in used), 2),
    "spread": round((max(seconds) - min(seconds)) / median, 3),
    "peak_mb": round(max(row["peak_mb"] for row in rows)),
    "others": round(statistics.mean(row["others"] for row in rows), 3),
    "steps": len(used),
    "basis": "quiet steps" if used is quiet else "all steps",
    "last_loss": round(rows[-1]["loss"], 4),
  }


def missed(records: list[dict[str, Any]]) -> list[str]:
  """A sentence for each bound that the records do not keep."""
  found = {record["peer"]: record for record in records}
  ratio = lambda a, b, key: found[a][key] / found[b][key]
  faults = []
  pairs = [("mmjax", other, LEAST_SPEED) for other in OTHERS] + [("mmjax+remat", "mmjax", LEAST_REMAT_SPEED)]
  pairs = [(ours, other, least) for ours, other, least in pairs if ours in found and other in found]
  for ours, other, least in pairs:
    speed = ratio(ours, other, "images_per_cpu_second")
    if speed < least:
      faults.append(f"{ours} makes {speed:.2f} times the images per CPU second of {other}; the bound is {least:g}")
    if other == "mmjax" and (memory := ratio(ours, other, "peak_mb")) >= MOST_REMAT_MEMORY:
      faults.append(f"{ours} takes {memory:.2f} times the memory of {other}; the bound is {MOST_REMAT_MEMORY:g}")
  if not pairs:
    faults.append(f"nothing was compared: give --peers mmjax and one of mmjax+remat, {', '.join(OTHERS)}")
  return faults


def _print_table(records: list[dict[str, Any]]) -> None:
  columns = ["peer", "images_per_second", "images_per_second_best", "images_per_cpu_second", "spread", "peak_mb"]
  columns += ["others", "basis"]
  reference = next((r for r in records if r["peer"] == "open_clip"), records[0])
  print("  ".join(columns), f" ratio to {reference['peer']}: speed, speed per CPU second, memory")
  for record in records:
    speed = record["images_per_second"] / reference["images_per_second"]
    thrift = record["images_per_cpu_second"] / reference["images_per_cpu_second"]
    memory = record["peak_mb"] / reference["peak_mb"]
    print("  ".join(str(record[column]) for column in columns), f" {speed:.2f}, {thrift:.2f}, {memory:.2f}")


def _peer(text: str) -> str:
  if text.partition("@")[0] not in PEERS:
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(PEERS)}")
  return text


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
    "--peers",
    nargs="+",
    type=_peer,
    default=["mmjax", "mmjax+remat"],
    help=f"{', '.join(PEERS)}; PEER@LABEL repeats one",
  )
  parser.add_argument("--env", nargs="*", default=[], help="peer=PYTHON, where it is not this one")
  parser.add_argument("--set", nargs="*", default=[], help="peer:NAME=VALUE, an environment variable of one peer")
  parser.add_argument("--big-vision", default="", help="a checkout of google-research/big_vision")
  parser.add_argument("--shape", choices=SHAPES, default="small")
  parser.add_argument("--batch", type=int, default=256)
  parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
  parser.add_argument("--warmup", type=int, default=2, help="steps before the timed ones")
  parser.add_argument("--steps", type=int, default=5, help="timed steps of each peer")
  parser.add_argument("--cpus", type=int, nargs="*", default=[], help="processors to run on (all)")
  parser.add_argument("--nice", type=int, default=0, help="priority of the timed steps; negative needs root")
  parser.add_argument("--rest", type=float, default=0.0, help="rest for this many step times after each step")
  parser.add_argument("--output", help="write the records here as JSON")
  parser.add_argument("--check", action="store_true", help="fail where a claim of RESULTS.md does not hold")
  parser.add_argument("--tiny", action="store_true", help="sizes that only show that the benchmark runs")
  parser.add_argument("--work", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.tiny:
    parser.set_defaults(**TINY)
    args = parser.parse_args()
  if args.work:
    return work(args)
  records = compare(args)
  _print_table(records)
  if args.output:
    with open(args.output, "w") as f:
      json.dump(records, f, indent=2)
  if args.check and (faults := missed(records)):
    sys.exit("\n".join(faults))


if __name__ == "__main__":
  main()
