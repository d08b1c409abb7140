"""The HTTP service under load: throughput, latency, nothing lost, killed and restarted, and hostile requests.

  python scripts/benchmarks/serve.py WORKDIR --out serve.json

Measures, each with --only NAME alone:
  throughput  images a second of 32 clients, one image a request, and of plain calls of run.encode_image with 32 images
  half        latency at half of that rate; requests arrive at random (Poisson), whether or not others are answered
  once        100,000 texts: every one answered, with its own embedding, and computed once
  restart     kill -9 under load, and the same command again: seconds until the next answer
  hostile     10,000 requests with bombs, lying sizes, wrong types, broken HTTP, slow clients: statuses, and memory

Client and service share the machine. `cpu_ms` is the time of all cores per image, which other work on the machine
changes less than rates. --check ends with status 1, and a sentence for each bound that is not kept.
"""

import argparse
import asyncio
import collections
import contextlib
import io
import json
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from serve_client import Connection, Server, served, texts_body
from serve_hostile import EXPECTED, attack

MEASURES = ("throughput", "half", "once", "restart", "hostile")
TINY = {"seconds": 1.0, "requests": 200, "hostile": 60, "clients": 4}
DOCUMENTED = {200, 400, 401, 404, 405, 408, 413, 415, 422, 503, 504}
LEAST_SHARE, MOST_SPREAD, MOST_GROWTH_MB, MOST_RESTART = 0.9, 2.0, 400, 1.5


def pictures(count: int, side: int) -> list[bytes]:
  """JPEGs of noise with shapes, all different."""
  rng, found = np.random.default_rng(0), []
  for _ in range(count):
    small = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
    found.append(data.getvalue())
  return found


def plain_rate(run: Any, images: list[bytes], batch: int, seconds: float) -> tuple[float, float]:
  """(images a second, seconds of all cores per image) of run.encode_image with `batch` encoded images."""
  groups = [images[start : start + batch] for start in range(0, len(images), batch)]
  run.encode_image(groups[0])
  began, used, done = time.monotonic(), time.process_time(), 0
  while time.monotonic() - began < seconds:
    done += len(run.encode_image(groups[done // batch % len(groups)]))
  return done / (time.monotonic() - began), (time.process_time() - used) / done


async def closed_loop(port: int, images: list[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
  """(answers a second, latencies) of clients that each send the next image when the last one is answered."""
  end, latencies = time.monotonic() + seconds, []

  async def client(number: int) -> None:
    connection, place = Connection(port), number
    while (began := time.monotonic()) < end:
      answer = await connection.ask("/embed/image", images[place % len(images)], "image/jpeg")
      if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {answer.body[:200]!r}")
      latencies.append(time.monotonic() - began)
      place += clients
    connection.close()

  began = time.monotonic()
  await asyncio.gather(*(client(number) for number in range(clients)))
  return len(latencies) / (time.monotonic() - began), latencies


async def open_loop(port: int, images: list[bytes], rate: float, seconds: float) -> list[float]:
  """Latencies of requests that arrive at random, at a mean rate."""
  chance, idle, latencies = random.Random(0), collections.deque[Connection](), []

  async def one(place: int, due: float) -> None:
    connection = idle.pop() if idle else Connection(port)
    answer = await connection.ask("/embed/image", images[place % len(images)], "image/jpeg")
    if answer.status != 200:
      raise SystemExit(f"status {answer.status}: {answer.body[:200]!r}")
    latencies.append(time.monotonic() - due)  # from when it should have been sent: waiting to be sent counts
    idle.append(connection)

  began, due, tasks = time.monotonic(), 0.0, []
  while due < seconds:
    await asyncio.sleep(max(0.0, began + due - time.monotonic()))
    tasks.append(asyncio.create_task(one(len(tasks), began + due)))
    due += chance.expovariate(rate)
  await asyncio.gather(*tasks)
  return latencies


async def every_once(port: int, expected: np.ndarray, texts: list[str], total: int, clients: int) -> dict[str, int]:
  """Ask for the embeddings of texts, each by its number, and compare."""
  counts = {"answered": 0, "other_status": 0, "wrong": 0}
  numbers = iter(range(total))

  async def client() -> None:
    connection = Connection(port)
    for number in numbers:
      place = number % len(texts)
      answer = await connection.ask("/embed/text", texts_body([texts[place]]))
      if answer.status != 200:
        counts["other_status"] += 1
        continue
      (row,) = json.loads(answer.body)["embeddings"]
      counts["answered"] += 1
      counts["wrong"] += int(np.abs(np.array(row) - expected[place]).max() > 1e-5)
    connection.close()

  await asyncio.gather(*(client() for _ in range(clients)))
  return counts


async def restart(make: Any, port: int, clients: int) -> dict[str, float]:
  """Kill the service under load and start it again, with the clients still asking."""
  stop, failed, answered = asyncio.Event(), 0, 0

  async def client() -> None:
    nonlocal failed, answered
    connection = Connection(port)
    while not stop.is_set():
      answer = await connection.ask("/embed/text", texts_body(["a cat"]))
      answered += answer.status == 200
      failed += answer.status != 200
      await asyncio.sleep(0.05 if answer.status != 200 else 0)
    connection.close()

  first = await asyncio.to_thread(make)
  tasks = [asyncio.create_task(client()) for _ in range(clients)]
  await asyncio.sleep(2)
  await asyncio.to_thread(first.kill)
  second = await asyncio.to_thread(make)
  before = answered
  await asyncio.sleep(2)
  stop.set()
  await asyncio.gather(*tasks)
  after = answered - before
  status = await asyncio.to_thread(second.stop)
  return {
    "start_s": first.start_seconds, "restart_s": second.start_seconds, "answered_after": after, "failed": failed,
    "exit_status": status,
  }  # fmt: skip


async def hostile(port: int, server: Server, total: int, clients: int) -> dict[str, Any]:
  """Statuses by kind of attack, and memory before and after."""
  found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
  before, numbers = server.memory_mb(), iter(range(total))

  async def client() -> None:
    for number in numbers:
      kind, answer = await asyncio.wait_for(attack(port, random.Random(number)), 60)
      found[kind][str(answer.status)] += 1

  await asyncio.gather(*(client() for _ in range(clients)))
  good = await Connection(port).ask("/embed/text", texts_body(["a cat"]))
  statuses = {kind: dict(sorted(counts.items())) for kind, counts in sorted(found.items())}
  return {"statuses": statuses, "before_mb": before, "after_mb": server.memory_mb(), "answers_afterwards": good.status}


def percentiles(latencies: list[float]) -> dict[str, float]:
  found = np.percentile(1000 * np.array(latencies), [50, 95, 99])
  return {"n": len(latencies), **{f"p{name}_ms": round(float(v), 2) for name, v in zip((50, 95, 99), found)}}


def measure(args: argparse.Namespace) -> dict[str, Any]:
  """Everything that was asked for."""
  from mmjax.loading import load_run
  from mmjax.parallel.host import tune_compiler

  tune_compiler()  # as the service does
  run, found = load_run(args.workdir), dict[str, Any]()
  port, log = free_port(), args.out.with_suffix(".log")
  options = ["--max-batch", str(args.max_batch), *args.serve]
  images = pictures(4 * args.clients, args.side)
  if {"throughput", "half"} & {*args.only}:
    plain, plain_cpu = plain_rate(run, images, args.clients, args.seconds)
    with served(args.workdir, port, log, options) as server:
      asyncio.run(closed_loop(port, images, args.clients, min(2.0, args.seconds)))
      mine, theirs = time.process_time(), server.cpu_seconds()
      rate, latencies = asyncio.run(closed_loop(port, images, args.clients, args.seconds))
      found["throughput"] = {"plain": plain, "served": rate, "share": rate / plain, "clients": percentiles(latencies)}
      per_image = {"plain": plain_cpu, "served": (server.cpu_seconds() - theirs) / len(latencies)}
      per_image["clients"] = (time.process_time() - mine) / len(latencies)
      found["throughput"]["cpu_ms"] = {name: round(1000 * value, 3) for name, value in per_image.items()}
      if "half" in args.only:
        found["half"] = {"rate": rate / 2, **percentiles(asyncio.run(open_loop(port, images, rate / 2, args.seconds)))}
      found["throughput"]["compiled"] = server.metrics()["mmjax_compilations_total"]
  if "once" in args.only:
    texts = [f"text number {n}" for n in range(min(1000, args.requests))]
    expected = run.encode_text(texts)
    with served(args.workdir, port, log, options) as server:
      began = time.monotonic()
      counts = asyncio.run(every_once(port, expected, texts, args.requests, args.clients))
      seconds = time.monotonic() - began
      computed = int(server.metrics()['mmjax_batch_items_sum{ability="embed_text"}'])
      found["once"] = {"requests": args.requests, **counts, "computed": computed, "per_second": args.requests / seconds}
      found["once"]["memory_mb"] = server.memory_mb()
  if "restart" in args.only:
    found["restart"] = asyncio.run(restart(lambda: Server(args.workdir, port, log, options), port, args.clients))
  if "hostile" in args.only:
    with served(args.workdir, port, log, options) as server:
      found["hostile"] = asyncio.run(hostile(port, server, args.hostile, min(16, args.clients)))
  return found


def missed(found: dict[str, Any]) -> list[str]:
  """A sentence for each bound that is not kept."""
  faults = []
  if (throughput := found.get("throughput")) and throughput["share"] < LEAST_SHARE:
    faults.append(f"the service reaches {throughput['share']:.2f} of plain batched calls; the bound is {LEAST_SHARE}")
  if throughput and throughput["compiled"]:
    faults.append(f"{throughput['compiled']:g} programs were compiled after the start")
  if (half := found.get("half")) and half["p99_ms"] > MOST_SPREAD * half["p50_ms"]:
    faults.append(f"at half load p99 is {half['p99_ms'] / half['p50_ms']:.2f} times p50; the bound is {MOST_SPREAD:g}")
  if once := found.get("once"):
    total = once["requests"]
    if (once["answered"], once["computed"], once["wrong"]) != (total, total, 0):
      faults.append(
        f"of {total} requests {once['answered']} were answered, {once['wrong']} wrongly, {once['computed']} computed"
      )
  if again := found.get("restart"):
    if again["restart_s"] > MOST_RESTART * again["start_s"]:
      faults.append(
        f"it answers {again['restart_s']:.1f} s after a restart under load; the first start took {again['start_s']:.1f}"
      )
    if not again["answered_after"] or again["exit_status"]:
      faults.append(f"after the restart {again['answered_after']} were answered; exit status {again['exit_status']}")
  if tried := found.get("hostile"):
    statuses = {int(status) for counts in tried["statuses"].values() for status in counts} - {0}
    if statuses - DOCUMENTED:
      faults.append(f"hostile requests got statuses {sorted(statuses - DOCUMENTED)}")
    for kind, allowed in EXPECTED.items():
      if others := {int(status) for status in tried["statuses"].get(kind, {})} - allowed:
        faults.append(
          f"hostile requests of the kind {kind!r} got {sorted(others)} (0: no answer), not {sorted(allowed)}"
        )
    growth = tried["after_mb"]["VmHWM"] - tried["before_mb"]["VmRSS"]
    if growth > MOST_GROWTH_MB or tried["answers_afterwards"] != 200:
      faults.append(f"hostile requests took {growth:.0f} MB; the status afterwards is {tried['answers_afterwards']}")
  return faults if found else ["nothing was measured"]


def free_port() -> int:
  with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
    return free.getsockname()[1]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("workdir", type=Path, help="workdir of a run with images and texts")
  parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES)
  parser.add_argument("--clients", type=int, default=32)
  parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of speed")
  parser.add_argument("--requests", type=int, default=100_000)
  parser.add_argument("--hostile", type=int, default=10_000)
  parser.add_argument("--side", type=int, default=256, help="pixels of the images")
  parser.add_argument("--max-batch", type=int, default=32)
  parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], help="more options of the service; the last")
  parser.add_argument("--out", type=Path, default=Path("build/serve.json"))
  parser.add_argument("--check", action="store_true", help="fail where a bound is not kept")
  parser.add_argument("--tiny", action="store_true", help="sizes that only show that the benchmark runs")
  args = parser.parse_args()
  if args.tiny:
    parser.set_defaults(**TINY)
    args = parser.parse_args()
  args.out.parent.mkdir(parents=True, exist_ok=True)
  found = measure(args)
  args.out.write_text(json.dumps(found, indent=2) + "\n")
  print(json.dumps(found, indent=2))
  if args.check and (faults := missed(found)):
    sys.exit("\n".join(faults))


if __name__ == "__main__":
  main()
