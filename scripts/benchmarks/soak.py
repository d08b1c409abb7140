"""Does the loader leak, or stall where a worker is killed? Reads shards for minutes and watches resident memory.

  python scripts/benchmarks/soak.py --minutes 10

Prints a line of JSON: the slope of resident memory (MB a minute) over the second half with its standard error, for this
process and its workers, and the longest wait for a batch, after a kill and otherwise. Workers are killed in the first
third only, since a new one's memory has to fill first: allocators come to rest after some 4,000 batches, so with less
than that in the first half (--rate 4) what is left of the filling looks like a leak. Exit status 1 where memory grew
beyond noise (a slope that noise alone exceeds less than once in forty times), or a wait took longer than --bound.
"""

import argparse
import dataclasses
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats

from mmjax.data import DataConfig, Shards, TokenizerConfig, make_loader, make_source, make_tokenizer
from mmjax.data.feed import device_prefetch
from mmjax.data.records import Record
from mmjax.data.shards.writer import write_shards

COLUMNS = ("seconds", "main", "workers")
"""Of samples: since the start, and megabytes resident here and in all workers."""


@dataclasses.dataclass
class Waits:
  """Counts of the consumer: batches, kills, and waiting times, in the 24 batches after a kill and otherwise."""

  batches: int = 0
  kills: int = 0
  bad_records_replaced: int = 0
  longest_after_a_kill_s: float = 0.0
  longest_else_s: float = 0.0

  def add(self, seconds: float, since_kill: int) -> None:
    self.batches += 1
    if since_kill < 24:
      self.longest_after_a_kill_s = round(max(self.longest_after_a_kill_s, seconds), 2)
    else:
      self.longest_else_s = round(max(self.longest_else_s, seconds), 2)


def main() -> int:
  options = _options()
  with tempfile.TemporaryDirectory() as folder:
    config = _config(Path(folder), options)
    samples, waits = _run(config, options)
  half = samples[samples[:, 0] > options.minutes * 30]
  slopes = {f"{name}_memory": growth(half, name) for name in ("main", "workers")}
  print(json.dumps({"minutes": options.minutes, "workers": options.workers, **dataclasses.asdict(waits), **slopes}))
  stalled = max(waits.longest_after_a_kill_s, waits.longest_else_s) > options.bound
  return int(stalled or not all(slope["within_noise"] for slope in slopes.values()))


def _options() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--minutes", type=float, default=10.0)
  parser.add_argument("--workers", type=int, default=2)
  parser.add_argument("--rate", type=float, default=20.0, help="batches a second at most; 0: as fast as it goes")
  parser.add_argument("--batch-size", type=int, default=16)
  parser.add_argument("--image-size", type=int, default=64)
  parser.add_argument("--records", type=int, default=400)
  parser.add_argument("--kills", type=int, default=3, help="workers killed, spread over the first third")
  parser.add_argument("--bound", type=float, default=60.0, help="seconds for a batch that count as a stall")
  return parser.parse_args()


def _config(folder: Path, options: argparse.Namespace) -> DataConfig:
  """Tars and ArrayRecords of photographs, one in a hundred of them broken."""
  for name, seed in (("webdataset", 0), ("arrayrecord", 1)):
    records = _records(options.records // 2, seed)
    list(write_shards(records, folder / name, format=name, per_shard=max(1, options.records // 10)))  # type: ignore[arg-type]
  return DataConfig(
    source=Shards((f"{folder}/webdataset/*.tar", f"{folder}/arrayrecord/*"), weights=(2.0, 1.0)),
    dir=str(folder / "cache"),
    tokenizer=TokenizerConfig(vocab_size=512, max_length=16),
    workers=options.workers,
    cache_mb=8,
    on_bad_record="skip",
  )


def _records(number: int, seed: int):
  rng = np.random.default_rng(seed)
  for n in range(number):
    data = io.BytesIO()
    noise = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((240, 180), Image.Resampling.BICUBIC).save(data, "JPEG")
    image = data.getvalue()[:500] if n % 100 == 7 else data.getvalue()
    yield Record(image=image, captions={"name": [f"picture {n} of {seed}"]}, id=str(n), concept=n)


def _run(config: DataConfig, options: argparse.Namespace) -> tuple[np.ndarray, Waits]:
  source = make_source(config, "train")
  size = {"image_size": options.image_size, "batch_size": options.batch_size}
  loader = make_loader(config, source, make_tokenizer(config, source), process_index=0, process_count=1, **size)
  samples, taken = np.zeros((int(options.minutes * 60) + 2, len(COLUMNS))), 0  # a list would grow, and be measured
  waits, killed = Waits(), -1000
  due = [options.minutes * 20 * (n + 1) / (options.kills + 1) for n in range(options.kills)]
  with device_prefetch(loader, lambda batch: {name: np.array(rows) for name, rows in batch.items()}) as feed:
    next(feed)  # the workers have started
    begun = time.monotonic()
    for step, _ in enumerate(feed):
      now = time.monotonic() - begun
      waits.add(feed.seconds_waited, step - killed)
      if not taken or now > samples[taken - 1, 0] + 1:
        samples[taken], taken = _sample(now), taken + 1
      if due and now > due[0]:
        due.pop(0)
        killed, waits.kills = step, waits.kills + 1
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
      if now > options.minutes * 60:
        waits.bad_records_replaced = loader.num_bad_records
        return samples[:taken], waits
      if options.rate:
        time.sleep(max(0.0, (step + 1) / options.rate - now))
  raise AssertionError("the stream has no end")


def _sample(seconds: float) -> tuple[float, float, float]:
  children = [child.pid for child in multiprocessing.active_children()]
  return seconds, _resident(os.getpid()), sum(_resident(pid) for pid in children if pid)


def _resident(pid: int) -> float:
  """Megabytes of its own: shared memory counts for whoever holds it last, and batches come and go in it."""
  try:
    pages = [int(field) for field in Path(f"/proc/{pid}/statm").read_text().split()]
  except OSError:  # it was killed a moment ago
    return 0.0
  return (pages[1] - pages[2]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def slope(minutes: np.ndarray, values: np.ndarray, stretches: int) -> tuple[float, float]:
  """(slope a minute, its standard error): least squares through the means of equal stretches of the samples.

  Memory moves in steps, so neighbouring samples resemble each other, and an error from all of them would be far too
  small; the means of stretches that are longer than this resemblance are nearly independent (batch means).
  """
  times, means = (np.array([part.mean() for part in np.array_split(x, stretches)]) for x in (minutes, values))
  centred = times - times.mean()
  fitted = float(centred @ means / (centred @ centred))
  residual = means - means.mean() - fitted * centred
  return fitted, float(np.sqrt(residual @ residual / (stretches - 2) / (centred @ centred)))


def growth(samples: np.ndarray, name: str, stretches: int = 10) -> dict[str, float | bool]:
  """Growth of one of the samples' columns, and whether noise explains it (Student's t, one-sided, 2.5%)."""
  minutes, values = samples[:, 0] / 60, samples[:, COLUMNS.index(name)]
  if len(values) < 2 * stretches:  # less than a minute: nothing can be said, and nothing is
    return {"samples": len(values), "within_noise": False}
  fitted, error = slope(minutes, values, stretches)
  return {
    "mb": round(float(values.mean()), 1),
    "mb_per_minute": round(fitted, 3),
    "standard_error": round(error, 3),
    "within_noise": bool(fitted <= stats.t.ppf(0.975, stretches - 2) * error),
  }


if __name__ == "__main__":
  sys.exit(main())
