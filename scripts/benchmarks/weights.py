"""Seconds and memory to load the published weights of a ViT-L/14, and embeddings per second on one core.

Loading is compared with `safetensors.numpy.load_file`, which reads the same file and converts nothing: each load runs
in a process of its own, and the readers take turns. Embeddings are compared with transformers, which reads the same
folder, with batches of `--batch` images in float32 on one core: each library runs in a process of its own, and they
take turns batch by batch. The weights are random, in the true sizes; they are written to a folder that is removed.

  python scripts/benchmarks/weights.py --env transformers=PYTHON --output weights.json --check

PYTHON has transformers and torch. The seconds are those of the CPU, which other programs disturb little; the seconds of
the clock are printed beside them. --check compares the run with the bounds below, and ends with status 1 if one does
not hold.
"""

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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Image size, patch size, width, depth and heads of the image towers; the embeddings' dimension.
TOWERS = {
  "tiny": (16, 8, 32, 1, 2, 16),
  "b32": (224, 32, 768, 12, 12, 512),
  "b16": (224, 16, 768, 12, 12, 512),
  "l14": (224, 14, 1024, 24, 16, 768),
  "l14_336": (336, 14, 1024, 24, 16, 768),
}
TEXT = {"tiny": (16, 1, 2), "l14": (768, 12, 12)}  # width, depth and heads of the text towers
READERS = ("safetensors", "mmjax", "mmjax+bfloat16", "mmjax+shards")
# Bounds of --check. Loading: the time of safetensors, and the peak of the whole process over the file's size.
# Embeddings: those of transformers in as much CPU time.
MOST_TIME, MOST_MEMORY, LEAST_SPEED = 1.5, 1.3, 1.0


def write_model(folder: Path, size: str, *, text: bool) -> None:
  """Write a CLIP, or its image tower alone, with random weights, as transformers does."""
  import numpy as np

  from mmjax import interop
  from mmjax.encoders import TextConfig, ViTConfig
  from mmjax.interop.shapes import flat_shapes, unflatten
  from mmjax.models import SharedSpaceConfig, TwoTowerConfig

  pixels, patch, width, depth, heads, embed = TOWERS[size]
  image = ViTConfig(
    width=width,
    depth=depth,
    num_heads=heads,
    image_size=pixels,
    patch_size=patch,
    pool="cls",
    stem_bias=False,
    input_norm=True,
    class_position=True,
    activation="quick_gelu",
    norm_epsilon=1e-5,
  )
  config: Any
  if text:
    width, depth, heads = TEXT[size]
    words = TextConfig(
      width=width, depth=depth, num_heads=heads, vocab_size=49_408, max_length=77, eos_id=49_407,
      activation="quick_gelu", norm_epsilon=1e-5, pool="eos_or_first", pad_id=1, mask_padding=False,
    )  # fmt: skip
    config = TwoTowerConfig(image=image, text=words, embed_dim=embed, max_logit_scale=math.inf)
  else:
    config = SharedSpaceConfig(towers={"image": image}, embed_dim=embed, init_logit_scale=None, projection="linear")
  drawn = 0.02 * np.random.default_rng(0).standard_normal(1 << 20, np.float32)
  params = {name: np.resize(drawn, shape) for name, shape in flat_shapes(config).items()}
  interop.save(config.build(), unflatten(params), folder, format="transformers")


def megabytes(key: str) -> float:
  with open("/proc/self/status") as f:
    return next(int(line.split()[1]) / 1024 for line in f if line.startswith(key + ":"))


def timed(step: Callable[[], Any]) -> dict[str, float]:
  """Seconds of the clock and of the CPU."""
  own, start = time.process_time(), time.perf_counter()
  step()
  return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - own}


def loader(reader: str, folder: Path) -> Callable[[], Any]:
  """Make the function that loads a folder. The libraries of the reader are imported and JAX has started."""
  name, _, option = reader.partition("+")
  if name == "safetensors":
    from safetensors.numpy import load_file

    return lambda: load_file(folder / "model.safetensors")
  import jax

  from mmjax import interop

  jax.block_until_ready(jax.numpy.zeros(()))
  if option != "shards":
    dtype: Any = option or "float32"
    load = interop.load  # imports what loads
    return lambda: jax.block_until_ready(load(folder, dtype=dtype)[1])
  from mmjax.interop.shapes import flat_shapes, unflatten
  from mmjax.interop.source import open_source

  mesh = jax.make_mesh((2,), ("fsdp",))
  shapes = {n: jax.ShapeDtypeStruct(s, "float32") for n, s in flat_shapes(open_source(folder).config).items()}
  split = lambda shape: jax.P(*["fsdp" if n % 2 == 0 else None for n in shape[:1]])
  shardings = {name: jax.NamedSharding(mesh, split(leaf.shape)) for name, leaf in shapes.items()}
  both = unflatten(shapes), unflatten(shardings)
  return lambda: jax.block_until_ready(interop.restore(folder, both[0], shardings=both[1])[0])


def embedder(peer: str, folder: Path, batch: int) -> Callable[[], Any]:
  """Embed one batch of random images."""
  import numpy as np

  size = json.loads((folder / "config.json").read_text())["image_size"]
  images = np.random.default_rng(0).standard_normal((batch, 3, size, size), np.float32)
  if peer == "transformers":
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # not used; its wheels fail beside torch for CPUs
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    pixels = torch.from_numpy(images)
    return torch.inference_mode()(lambda: model(pixel_values=pixels).image_embeds.numpy())
  from mmjax import interop

  ours, params = interop.load(folder)
  channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
  return lambda: np.asarray(ours.apply({"params": params}, channels_last, method="encode_image"))


def work(args: argparse.Namespace) -> None:
  """One process: answers every line on standard input with what a load or a batch takes."""
  os.sched_setaffinity(0, {args.cpu})  # before any library counts its threads
  kind, name = args.work
  replies, sys.stdout = sys.stdout, sys.stderr
  say = lambda value: print(json.dumps(value), file=replies, flush=True)
  sys.path.insert(0, str(ROOT))
  folder = Path(args.folder)
  if kind == "load":
    step = loader(name, folder)
    say({"base_mb": megabytes("VmRSS")})
  else:
    step = embedder(name, folder, args.batch)
    say({"first": [float(x) for x in step()[0]]})
    step()
  for _ in sys.stdin:
    say({**timed(step), "peak_mb": megabytes("VmHWM")})


class Worker:
  """A process that runs `work`."""

  def __init__(self, args: argparse.Namespace, kind: str, name: str, folder: Path):
    pythons = dict(entry.split("=", 1) for entry in args.env)
    python = pythons.get(name.partition("+")[0], sys.executable)
    command = [python, __file__, "--work", kind, name, "--folder", str(folder)]
    command += ["--batch", str(args.batch), "--cpu", str(args.cpu)]
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"} if name.endswith("+shards") else {}
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", **devices}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    self.name = name
    self.process: Any = subprocess.Popen(command, text=True, env=environment, **pipes)
    self.start = self._answer()

  def _answer(self) -> dict[str, Any]:
    line = self.process.stdout.readline()
    if not line:
      raise SystemExit(f"{self.name} ended early: its messages are above")
    return json.loads(line)

  def step(self) -> dict[str, Any]:
    """Run one load or one batch."""
    self.process.stdin.write("step\n")
    self.process.stdin.flush()
    return self._answer()

  def close(self) -> None:
    """End the process."""
    self.process.stdin.close()
    self.process.wait()


def measure_loading(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
  """One record per reader. The first round fills the cache of the disk and does not count."""
  size = (folder / "model.safetensors").stat().st_size / 2**20
  rows: dict[str, list[dict[str, Any]]] = {reader: [] for reader in args.readers}
  for _ in range(args.rounds + 1):
    for reader, found in rows.items():
      worker = Worker(args, "load", reader, folder)
      found.append({**worker.start, **worker.step()})
      worker.close()
  middle = lambda found, key: statistics.median(row[key] for row in found[1:])
  return [
    {"reader": reader, "file_mb": size, **{k: middle(found, k) for k in found[0]}, "rounds": args.rounds}
    for reader, found in rows.items()
  ]


def measure_embedding(args: argparse.Namespace, folder: Path, size: str) -> list[dict[str, Any]]:
  """One record per library. They take turns batch by batch."""
  workers = [Worker(args, "embed", peer, folder) for peer in args.peers]
  first = workers[0].start["first"]
  for worker in workers[1:]:
    norm = sum(x * x for x in first) ** 0.5
    apart = max(abs(a - b) for a, b in zip(first, worker.start["first"], strict=True)) / norm
    if apart > 1e-4:
      raise SystemExit(f"{size}: the embeddings of {worker.name} are {apart:g} of their norm apart")
  found = [[worker.step() for worker in workers] for _ in range(args.batches)]
  for worker in workers:
    worker.close()
  middle = lambda place, key: statistics.median(row[place][key] for row in found)
  return [
    {
      "tower": size,
      "peer": worker.name,
      "images_per_cpu_second": args.batch / middle(place, "cpu_seconds"),
      "images_per_second": args.batch / middle(place, "seconds"),
      "batches": args.batches,
    }
    for place, worker in enumerate(workers)
  ]


def missed(result: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
  """A sentence for each bound that a run does not keep."""
  loads = {row["reader"]: row for row in result["loading"]}
  others = [row for name, row in loads.items() if name != "safetensors"]
  if "safetensors" not in loads or not others:
    yield "loading was not compared with safetensors"
  for row in others if "safetensors" in loads else []:
    time_ratio = row["cpu_seconds"] / loads["safetensors"]["cpu_seconds"]
    if time_ratio > MOST_TIME:
      yield f"{row['reader']} loads in {time_ratio:.2f} times the time of safetensors; the bound is {MOST_TIME:g}"
    memory = row["peak_mb"] / row["file_mb"]
    if memory > MOST_MEMORY:
      yield f"{row['reader']} peaks at {memory:.2f} times the file; the bound is {MOST_MEMORY:g}"
  speeds: dict[str, dict[str, float]] = {}
  for row in result["embedding"]:
    speeds.setdefault(row["tower"], {})[row["peer"]] = row["images_per_cpu_second"]
  for tower, peers in speeds.items():
    if not {"mmjax", "transformers"} <= set(peers):
      yield f"{tower}: embeddings were not compared with transformers"
    elif (ratio := peers["mmjax"] / peers["transformers"]) < LEAST_SPEED:
      yield f"{tower}: mmjax embeds {ratio:.2f} times the images of transformers; the bound is {LEAST_SPEED:g}"


def _print(result: dict[str, list[dict[str, Any]]]) -> None:
  print("| reader | seconds (CPU) | peak MB | peak / file |\n|---|---|---|---|")
  for row in result["loading"]:
    print(
      f"| {row['reader']} | {row['seconds']:.2f} ({row['cpu_seconds']:.2f}) | {row['peak_mb']:.0f}, "
      f"{row['base_mb']:.0f} of them before | {row['peak_mb'] / row['file_mb']:.2f} |"
    )
  print("\n| tower | library | images per CPU second | images per second |\n|---|---|---|---|")
  for row in result["embedding"]:
    print(f"| {row['tower']} | {row['peer']} | {row['images_per_cpu_second']:.2f} | {row['images_per_second']:.2f} |")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--load", default="l14", choices=TEXT, help="size of the model that is loaded")
  parser.add_argument("--readers", nargs="*", default=list(READERS), choices=READERS)
  parser.add_argument("--rounds", type=int, default=3, help="loads of each reader")
  parser.add_argument("--towers", nargs="*", default=["b32", "b16"], choices=TOWERS)
  parser.add_argument("--peers", nargs="+", default=["mmjax", "transformers"], choices=["mmjax", "transformers"])
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--batches", type=int, default=15, help="batches of each library")
  parser.add_argument("--cpu", type=int, default=0, help="core that everything runs on")
  parser.add_argument("--env", nargs="*", default=[], metavar="PEER=PYTHON", help="Python of a library")
  parser.add_argument("--folder", default=None, help="where to write the weights; default: a temporary folder")
  parser.add_argument("--output", default=None, help="JSON file")
  parser.add_argument("--check", action="store_true", help="fail where a bound does not hold")
  parser.add_argument("--tiny", action="store_true", help="sizes that only show that the benchmark runs")
  parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.work:
    work(args)
    return
  if args.tiny:
    args.load, args.towers, args.rounds, args.batches = "tiny", ["tiny"], 1, 2
  sys.path.insert(0, str(ROOT))
  os.environ["JAX_PLATFORMS"] = "cpu"
  result: dict[str, list[dict[str, Any]]] = {"loading": [], "embedding": []}
  written = Path(tempfile.mkdtemp(dir=args.folder))
  try:
    if args.readers:
      write_model(written / args.load, args.load, text=True)
      result["loading"] = measure_loading(args, written / args.load)
      shutil.rmtree(written / args.load)
    for size in args.towers:
      write_model(written / size, size, text=False)
      result["embedding"] += measure_embedding(args, written / size, size)
      shutil.rmtree(written / size)
  finally:
    shutil.rmtree(written)
  _print(result)
  if args.output:
    Path(args.output).write_text(json.dumps(result, indent=2))
  if args.check and (faults := list(missed(result))):
    sys.exit("\n".join(faults))


if __name__ == "__main__":
  main()
