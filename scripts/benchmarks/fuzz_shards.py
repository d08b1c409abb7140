"""Random shards, read by mmjax and by an obvious slow reader: equal records, or the same records refused by name.

  python scripts/benchmarks/fuzz_shards.py --cases 10000 [--kinds tar array-record] [--seed 0] [--out build/fuzz]

The slow reader of tars is Python's tarfile, with everything in memory; that of ArrayRecord files remembers what was
written. Prints a line of JSON for each kind: cases, records that were equal, faults that both name, and cases that
differ. A case that differs is kept in --out, and the exit status is 1.
"""

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import slow_shards
from tar_cases import tar_case

from mmjax.data import DataError, Reading, Shards
from mmjax.data.shards.record import encode_record
from mmjax.data.shards.tar_index import tar_index


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--cases", type=int, default=10_000, help="for each kind")
  parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
  options = parser.parse_args()
  logging.disable(logging.CRITICAL)
  differ = 0
  for kind in options.kinds:
    counts = fuzz(kind, options.cases, options.seed, options.out)
    print(json.dumps({"kind": kind, **counts}), flush=True)
    differ += counts["differ"]
  return int(differ > 0)


def fuzz(kind: str, cases: int, seed: int, out: Path) -> Counter[str]:
  """Compare the readers on this number of cases, a function of the seed."""
  counts = Counter(cases=0, records=0, faults=0, differ=0)
  with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
    for number in range(cases):
      path = Path(folder) / f"case.{kind.replace('-', '_')}"
      try:
        counts.update(KINDS[kind](random.Random(f"{kind} {seed} {number}"), path))
      except Exception as error:
        counts["differ"] += 1
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out / f"{path.stem}-{number}{path.suffix}")
        print(f"case {number}: {type(error).__name__}: {error}", file=sys.stderr)
      counts["cases"] += 1
      shutil.rmtree(Path(folder) / "shards", ignore_errors=True)
  return counts


def tar(rng: random.Random, path: Path) -> dict[str, int]:
  """One random tar, whole, cut, or with other bytes after it."""
  archives = tar_case(rng)
  damage = rng.choice(("none",) * 8 + ("cut", "joined to other bytes"))
  if damage == "cut":
    archives = _cut(archives, rng.randrange(sum(map(len, archives))))
  elif damage != "none":
    archives.append(b"other bytes" * rng.randrange(1, 100))
  path.write_bytes(b"".join(archives))
  faults = tar_index(path, path.parent / "shards", json_first=False, max_bytes=10_000).faults
  expected, found = slow_shards.slow_tar(archives), opened(path)
  if faults.broken and (len(found), faults.bad) != (len(expected.records), len(expected.faults)):
    expected = slow_shards.slow_tar(archives, drop_last=True)  # the record before the damage may be incomplete
  assert faults.bytes.total() == path.stat().st_size, f"{faults.bytes} are not the size"
  assert bool(faults.broken) == (damage != "none") or not any(archives[-1][-512:]), f"{damage}, {faults.broken}"
  compare(found, faults, expected)
  check_error(path, wrong=bool(faults.bad or faults.broken), records=len(found))
  return {"records": len(found), "faults": len(expected.faults)}


def _cut(archives: list[bytes], size: int) -> list[bytes]:
  """The first bytes of archives, whose last may be incomplete."""
  cut = []
  for data in archives:
    cut.append(data[:size])
    size = max(0, size - len(data))
  return cut


def compare(found, faults, expected: slow_shards.Expected) -> None:
  wanted = [(image, captions, shown(name)) for image, captions, name in expected.records]
  assert found == wanted, f"{_short(found)} are not {_short(wanted)}"
  assert faults.bad == len(expected.faults), f"{faults.named} are not {expected.faults}"
  assert faults.broken or faults.members == expected.members, f"{faults.members} members are not {expected.members}"
  for name in expected.faults if faults.bad < 20 else ():
    messages = [unicodedata.normalize("NFC", text).replace("/./", "/").replace("//", "/") for text in faults.named]
    assert any(shown(name)[:80] in message for message in messages), f"{shown(name)} is not in {messages}"


def shown(name: str) -> str:
  """The name as messages have it, with escapes."""
  text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
  return text.replace("\n", "\\n").replace("\t", "\\t")


def _short(records) -> list:
  return [(image[:12], *rest) for image, *rest in records]


def array_record(rng: random.Random, path: Path) -> dict[str, int]:
  """One random ArrayRecord file, whole, damaged or joined to another: each record is equal, or an error names it."""
  records = _written(rng, path)
  damage = rng.choice(("none", "none", "cut", "bits", "zeros", "joined"))
  data = bytearray(path.read_bytes())
  if damage == "cut":
    del data[rng.randrange(len(data)) :]
  elif damage == "bits":
    for _ in range(rng.randrange(1, 20)):
      data[rng.randrange(len(data) if rng.random() < 0.3 else 4096)] ^= 1 << rng.randrange(8)
  elif damage == "zeros":
    data += bytes(65_536 * rng.randrange(1, 3))
  elif damage == "joined":
    _written(rng, path)
    data += path.read_bytes()
  path.write_bytes(data)
  equal = refused = 0
  try:
    source = Shards((str(path),)).open("all", Reading(str(path.parent)))
    assert len(source) == len(records), f"{len(source)} records, and {len(records)} were written"
    for index, record in enumerate(records):
      try:
        found = source[index]
        assert (found["image"], found["captions"]["name"]) == record, f"record {index} is another"
        equal += 1
      except DataError as error:
        refused += 1
        assert str(path) in str(error)
  except DataError as error:
    refused += 1
    assert str(path) in str(error)
  assert refused == 0 or damage != "none", "a whole file was refused"
  return {"records": equal, "faults": refused}


def _written(rng: random.Random, path: Path) -> list[tuple[bytes, list[str]]]:
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(str(path), f"group_size:{rng.choice((1, 1, 3))},uncompressed")
  records = []
  for number in range(rng.randrange(1, 8)):
    image = rng.randbytes(rng.choice((1, 50, 3000, 70_000)))
    captions = [f"{rng.choice('aéß日')} {number} {place}" for place in range(rng.choice((1, 1, 3)))]
    records.append((image, captions))
    writer.write(encode_record(image, captions, f"k{number}"))
  writer.close()
  return records


def opened(path: Path) -> list[tuple[bytes, list[str], str]]:
  """Records of a shard without the bad ones: (image, captions, name)."""
  try:
    source = Shards((str(path),)).open("all", Reading(str(path.parent), "skip", max_bytes=10_000))
  except DataError as error:
    assert "has no record" in str(error), error
    return []
  records = [source[index] for index in range(len(source))]
  return [(record["image"], record["captions"]["name"], record["id"].removeprefix(f"{path}:")) for record in records]


def check_error(path: Path, *, wrong: bool, records: int) -> None:
  """Without "skip", a fault is an error that names the file."""
  try:
    Shards((str(path),)).open("all", Reading(str(path.parent), max_bytes=10_000))
  except DataError as error:
    assert str(path) in str(error) and (wrong or records == 0), error
  else:
    assert not wrong, "a fault, and no error"


KINDS = {"tar": tar, "array-record": array_record}

if __name__ == "__main__":
  sys.exit(main())
