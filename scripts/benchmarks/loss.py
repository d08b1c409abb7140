"""Time and peak memory of contrastive losses, forward and backward, against dense jnp and open_clip.

  python scripts/benchmarks/loss.py --n 4096 8192 --torch-python /tmp/vt/bin/python --out build/loss

Inputs are two unit-norm [N, d] float32 batches and a scale; gradients go to all of them. Every case runs in a process
of its own, under a limit on the memory it may allocate, so that one that does not fit is reported and not killed with
the machine; all losses take turns at one N, so that drift of the machine meets them alike. `extra_mb` is the highest
resident memory during the runs less that just before the first: what the loss itself needs. `temporaries` compiles
value_and_grad for P = 1, 2, 4, 8 virtual devices with a fixed number of pairs on each, and asks the compiler.

Writes OUT.json and OUT.png. open_clip needs a Python with torch and open_clip_torch, given by --torch-python; without
it those cases are left out. --check compares the run with the claims of RESULTS.md, names each that does not hold, and
ends with status 1 if there is one:

  python scripts/benchmarks/loss.py --check --n 4096 8192
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
JAX_LOSSES = ("mmjax.clip", "mmjax.siglip", "dense.clip", "dense.siglip")
TORCH_LOSSES = ("open_clip.clip", "open_clip.siglip")
LOCAL_PAIRS, LOCAL_WIDTH, LOCAL_TILE = 1024, 256, 256
BIAS = -10.0
TINY = {"n": [64], "d": 16, "warmup": 0, "steps": 1, "devices": [2]}
# Bounds of --check, from RESULTS.md. CPU seconds as a ratio: the dense loss in jnp takes .9 to 1.2 of ours up to
# N = 16,384, and open_clip's takes more at every N. Memory as a ratio to the dense loss's: 1/4 at worst from 8,192 on;
# at 4,096 and below one tile holds all the logits, as the dense loss does. Temporaries in KiB are of the design.
MOST_CPU_SECONDS = {"dense": 1.2, "open_clip": 1.0}
ONE_TILE, MOST_MEMORY = 4096, 0.5
MOST_TEMPORARIES, MOST_GROWTH = 10_240, 1.01
SAME_VALUE = 1e-5  # relative: what float32 leaves of the float64 value


def jax_losses():
  """name -> loss(image, text, scale)."""
  import jax
  import jax.numpy as jnp

  from mmjax.objectives import clip_loss, siglip_loss

  def clip(x, y, s):
    logits = s * x @ y.T
    pair = jnp.diagonal(logits)
    over = lambda axis: (jax.nn.logsumexp(logits, axis=axis) - pair).mean()
    return (over(1) + over(0)) / 2

  def siglip(x, y, s):
    logits = s * x @ y.T + BIAS
    return -jax.nn.log_sigmoid((2 * jnp.eye(len(x)) - 1) * logits).sum(-1).mean()

  def options(tile, axes):
    return {"tile_size": tile, "axis_name": axes}

  return {
    "mmjax.clip": lambda x, y, s, tile=None, axes=None: clip_loss(x, y, logit_scale=s, **options(tile, axes)),
    "mmjax.siglip": lambda x, y, s, tile=None, axes=None: siglip_loss(
      x, y, logit_scale=s, logit_bias=BIAS, **options(tile, axes)
    ),
    "dense.clip": clip,
    "dense.siglip": siglip,
  }


def jax_step(name, image, text, scale, tile):
  """A call that runs forward and backward to the end and returns (loss, gradients)."""
  import jax
  import jax.numpy as jnp

  loss = jax_losses()[name]
  if name.startswith("mmjax") and tile:
    loss = lambda x, y, s, whole=loss: whole(x, y, s, tile=tile)
  arguments = jnp.asarray(image), jnp.asarray(text), jnp.float32(scale)
  compiled = jax.jit(jax.value_and_grad(loss, (0, 1, 2))).lower(*arguments).compile()
  return lambda: jax.block_until_ready(compiled(*arguments))


def torch_step(name, image, text, scale):
  """open_clip's own loss module, loaded by file: its package imports torchvision, which a loss does not need."""
  import torch

  (folder,) = importlib.util.find_spec("open_clip").submodule_search_locations
  spec = importlib.util.spec_from_file_location("open_clip_loss", Path(folder) / "loss.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  torch.set_num_threads(len(os.sched_getaffinity(0)))
  x, y = (torch.from_numpy(v).requires_grad_() for v in (image, text))
  s, b = torch.tensor(float(scale), requires_grad=True), torch.tensor(BIAS, requires_grad=True)
  loss = module.ClipLoss() if name.endswith(".clip") else module.SigLipLoss()

  def step():
    x.grad = y.grad = s.grad = b.grad = None
    value = loss(x, y, s) if name.endswith(".clip") else loss(x, y, s, b)
    value.backward()
    return value.detach().numpy(), (x.grad.numpy(), y.grad.numpy())

  return step


def status_mb(key):
  for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith(key + ":"):
      return int(line.split()[1]) / 1024
  return float("nan")


def time_case(args):
  """Worker: one loss at one N; prints one JSON line."""
  import numpy as np

  draw = np.random.default_rng(0)
  x, y = (draw.standard_normal((args.case_n, args.d), dtype=np.float32) for _ in range(2))
  image, text = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y + x))
  torch_case = args.case in TORCH_LOSSES
  step = (
    torch_step(args.case, image, text, args.scale)
    if torch_case
    else jax_step(args.case, image, text, args.scale, args.tile)
  )
  if args.limit_gb:  # private anonymous memory, not mapped libraries
    limit = int(status_mb("VmData") * 2**20 + args.limit_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
  before = status_mb("VmRSS")
  Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark over
  seconds, processor = [], []
  for _ in range(args.warmup + args.steps):
    start, used = time.perf_counter(), time.process_time()
    value = step()[0]
    seconds.append(time.perf_counter() - start)
    processor.append(time.process_time() - used)
  timed = seconds[args.warmup :]
  row = {"loss": args.case, "n": args.case_n, "d": args.d, "value": float(value), "steps": len(timed)}
  row |= {"median_s": statistics.median(timed), "min_s": min(timed), "load": os.getloadavg()[0]}
  row["cpu_s"] = min(processor[args.warmup :])  # says more than the clock does on a shared machine
  print(json.dumps(row | {"extra_mb": round(status_mb("VmHWM") - before, 1)}))


def temporaries_case(args):
  """Worker: bytes of temporaries a device for every loss at one number of devices; prints one JSON line."""
  import jax
  import jax.numpy as jnp
  from jax.sharding import AxisType, NamedSharding, PartitionSpec

  jax.config.update("jax_num_cpu_devices", args.case_devices)
  mesh = jax.make_mesh((args.case_devices,), ("data",), axis_types=(AxisType.Auto,))
  split, whole = PartitionSpec("data"), PartitionSpec()
  place = lambda shape, spec: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
  features = place((args.case_devices * LOCAL_PAIRS, LOCAL_WIDTH), split)
  row = {"devices": args.case_devices, "pairs_per_device": LOCAL_PAIRS, "d": LOCAL_WIDTH, "tile": LOCAL_TILE}
  for name, loss in jax_losses().items():
    if name.startswith("mmjax"):
      local = lambda x, y, s, loss=loss: loss(x, y, s, tile=LOCAL_TILE, axes="data")
      loss = jax.shard_map(local, mesh=mesh, in_specs=(split, split, whole), out_specs=whole)
    step = jax.jit(jax.value_and_grad(loss, (0, 1, 2)), out_shardings=None)
    memory = step.lower(features, features, place((), whole)).compile().memory_analysis()
    row[name] = memory.temp_size_in_bytes
  print(json.dumps(row))


def run_worker(python, *arguments):
  """One measurement in a fresh process: its JSON line, or why there is none."""
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
  command = [python, str(Path(__file__).resolve()), *map(str, arguments)]
  result = subprocess.run(command, capture_output=True, text=True, env=environment)
  if result.returncode == 0:
    return json.loads(result.stdout.splitlines()[-1])
  reasons = [line for line in result.stderr.splitlines() if line.strip()] or [f"exit code {result.returncode}"]
  return {"failed": reasons[-1][-300:]}


def measure(args):
  result = {"machine": {"cpus": len(os.sched_getaffinity(0))}, "times": [], "temporaries": []}
  names = [name for name in args.losses if name in JAX_LOSSES or args.torch_python]
  for n in args.n:
    for name in names:
      python = args.torch_python if name in TORCH_LOSSES else sys.executable
      options = [f"--{key}={getattr(args, key.replace('-', '_'))}" for key in ("d", "scale", "warmup", "steps")]
      options += [f"--limit-gb={args.limit_gb}", f"--tile={args.tile}"]
      row = {"loss": name, "n": n} | run_worker(python, "--case", name, "--case-n", n, *options)
      print(json.dumps(row), flush=True)
      result["times"].append(row)
  for devices in args.devices:
    row = {"devices": devices} | run_worker(sys.executable, "--case-devices", devices)
    print(json.dumps(row), flush=True)
    result["temporaries"].append(row)
  return result


def missed(result):
  """A sentence for each bound that a result does not keep."""
  rows = {(row["loss"], row["n"]): row for row in result["times"]}
  ours = [row for row in result["times"] if row["loss"].startswith("mmjax")]
  faults = [f"{row['loss']} at N = {row['n']:,} failed: {row['failed']}" for row in ours if "failed" in row]
  pairs = [
    (rows[f"mmjax.{kind}", n], other)
    for (loss, n), other in rows.items()
    for project, _, kind in [loss.partition(".")]
    if project in MOST_CPU_SECONDS and (f"mmjax.{kind}", n) in rows
  ]
  for ours, other in pairs:
    if "failed" not in ours and "failed" not in other:  # the others may run out of memory
      faults.extend(slower_or_larger(ours, other))
  if not pairs and not result["temporaries"]:
    faults.append("nothing was compared: measure mmjax.clip beside dense.clip, or name --devices")
  return [*faults, *large_temporaries(result["temporaries"])]


def slower_or_larger(ours, other):
  """`missed` of one loss beside another at the same N."""
  place = f"{ours['loss']} at N = {ours['n']:,}"
  if abs(ours["value"] - other["value"]) > SAME_VALUE * abs(other["value"]):
    yield f"{place} is {ours['value']}, {other['loss']} is {other['value']}"
  ratio, most = ours["cpu_s"] / other["cpu_s"], MOST_CPU_SECONDS[other["loss"].partition(".")[0]]
  if ratio > most:
    yield f"{place} takes {ratio:.2f} times the CPU time of {other['loss']}; the bound is {most:g}"
  ratio = ours["extra_mb"] / max(other["extra_mb"], 1e-9)
  if ours["n"] > ONE_TILE and ratio > MOST_MEMORY:
    yield f"{place} takes {ratio:.2f} times the memory of {other['loss']}; the bound is {MOST_MEMORY:g}"


def large_temporaries(rows):
  """`missed` of the temporaries on a device."""
  failed = [row for row in rows if "failed" in row]
  yield from (f"temporaries on {row['devices']} devices: {row['failed']}" for row in failed)
  rows = [row for row in rows if "failed" not in row]
  for name in ("mmjax.clip", "mmjax.siglip"):
    sizes = {row["devices"]: row[name] / 1024 for row in rows}
    for devices, size in sizes.items():
      if size > MOST_TEMPORARIES:
        yield f"{name} on {devices} devices: {size:,.0f} KiB of temporaries; the bound is {MOST_TEMPORARIES:,}"
    ring = [size for devices, size in sizes.items() if devices > 1]
    if ring and max(ring) > MOST_GROWTH * min(ring):
      yield f"{name}: temporaries grow with the devices, {sizes}"


def plot(result, path):
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  figure, (times, memory, temporaries) = plt.subplots(1, 3, figsize=(15, 4.2), constrained_layout=True)
  done = [row for row in result["times"] if "failed" not in row]
  for name in dict.fromkeys(row["loss"] for row in done):
    rows = sorted((row["n"], row["median_s"], row["extra_mb"]) for row in done if row["loss"] == name)
    n, seconds, extra = zip(*rows, strict=True)
    style = {"marker": "o", "linestyle": "-" if name.startswith("mmjax") else "--", "label": name}
    times.plot(n, seconds, **style)
    memory.plot(n, [max(value, 1) for value in extra], **style)
  rows = [row for row in result["temporaries"] if "failed" not in row]
  for name in JAX_LOSSES:
    style = "-" if name.startswith("mmjax") else "--"
    temporaries.plot([r["devices"] for r in rows], [r[name] / 2**20 for r in rows], style, marker="o", label=name)
  times.set(xscale="log", yscale="log", xlabel="N", ylabel="seconds", title="forward + backward, one process")
  memory.set(xscale="log", yscale="log", xlabel="N", ylabel="MB", title="extra resident memory")
  temporaries.set(
    yscale="log", xlabel="devices", ylabel="MiB per device", title=f"temporaries, {LOCAL_PAIRS} pairs a device"
  )
  for axis in (times, memory, temporaries):
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
  figure.savefig(path, dpi=120)


def main():
  p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  everything = [*JAX_LOSSES, *TORCH_LOSSES]
  p.add_argument("--losses", nargs="*", default=everything, choices=everything, help="default: all")
  p.add_argument("--n", type=int, nargs="*", default=[4096, 8192, 16384, 32768, 65536], help="global batch sizes")
  p.add_argument("--d", type=int, default=512, help="embedding width")
  p.add_argument("--scale", type=float, default=20.0, help="logit scale")
  p.add_argument("--tile", type=int, default=0, help="tile size of mmjax losses; 0: their default")
  p.add_argument("--warmup", type=int, default=1, help="runs before the timed ones")
  p.add_argument("--steps", type=int, default=3, help="timed runs")
  p.add_argument("--limit-gb", type=float, default=14, help="what a loss may allocate beyond its inputs; 0: no limit")
  p.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8], help="virtual devices for temporaries")
  p.add_argument("--torch-python", help="Python with torch and open_clip_torch")
  p.add_argument("--out", type=Path, default=Path("build/loss"), help="OUT.json and OUT.png are written")
  p.add_argument("--check", action="store_true", help="fail where a claim of RESULTS.md does not hold")
  p.add_argument("--tiny", action="store_true", help="sizes that only show that the benchmark runs")
  p.add_argument("--case", choices=everything, help=argparse.SUPPRESS)
  p.add_argument("--case-n", type=int, help=argparse.SUPPRESS)
  p.add_argument("--case-devices", type=int, help=argparse.SUPPRESS)
  args = p.parse_args()
  if args.tiny:
    p.set_defaults(**TINY)
    args = p.parse_args()
  if args.case:
    return time_case(args)
  if args.case_devices:
    return temporaries_case(args)
  args.out.parent.mkdir(parents=True, exist_ok=True)
  result = measure(args)
  args.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
  plot(result, args.out.with_suffix(".png"))
  if args.check and (faults := missed(result)):
    sys.exit("\n".join(faults))


if __name__ == "__main__":
  main()
