"""Hostile inputs: bytes of valid seeds mutated, and structures broken in the ways parsers get wrong."""

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, 10**400)
STRINGS = (
  "",
  " ",
  "\0",
  "../../etc/passwd",
  "/etc/passwd",
  "\ud800",
  "é" * 300,
  "a" * 70_000,
  "1e999",
  "nan",
  "-1",
  "🙂",
  "{}",
)
FIELDS = (
  b"x" * 600, b"../../a.png\0", b"/a.png\0", b"a.pkl\0", b"77777777777\0", b"00000000000\0", b"-1\0",
  b"\x80" + bytes(3) + b"\xff" * 8, b"\x80" + bytes(10) + b"\x09", *(bytes([kind]) for kind in b"Lxg125S79"),
)  # fmt: skip
TEXTS = (
  b"",
  b"\0",
  b"\xff\xfe",
  b"\xed\xa0\x80",
  b"../",
  b"/",
  b"9" * 5000,
  b"[" * 3000,
  b'{"a":' * 2000,
  b"\n",
  b",",
  b'"',
)


@dataclasses.dataclass(frozen=True)
class Target:
  """`run` raises `documented` errors, or none.

  Attributes:
    seeds: valid inputs.
    mutate: (random.Random, a seed, all seeds) to an input.
  """

  seeds: Sequence[bytes]
  mutate: Callable[..., bytes]
  run: Callable[[bytes], Any]
  documented: tuple[type[Exception], ...]


def mutated(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
  """One to eight small changes of a seed: bits, bytes, spans, cuts, numbers, pieces of other seeds."""
  out = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 3, 8))):
    at, length = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 64, 600))
    kind = rng.randrange(8)
    if kind == 0 and at < len(out):
      out[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(out):
      out[at] = rng.choice((0, 1, 0x20, 0x2F, 0x30, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
      del out[at : at + length]
    elif kind == 3:
      out[at:at] = out[at : at + length] * rng.choice((1, 2, 50))
    elif kind == 4:
      out[at:at] = rng.choice(TEXTS)
    elif kind == 5:
      number = rng.choice(NUMBERS) % 2**64
      size = rng.choice((1, 2, 4, 8))
      out[at : at + size] = (number % 256**size).to_bytes(size, rng.choice(("little", "big")))
    elif kind == 6:
      del out[at:]
    else:
      other = rng.choice(others)
      start = rng.randrange(len(other) + 1)
      out[at : at + length] = other[start : start + length]
  return bytes(out)


def value(rng: random.Random, depth: int = 0) -> Any:
  """Any JSON value, and some that only Python writes."""
  kind = rng.randrange(9 if depth < 3 else 6)
  if kind == 0:
    return rng.choice((None, True, False))
  if kind == 1:
    return rng.choice(NUMBERS) * rng.choice((1, -1))
  if kind == 2:
    return rng.choice((0.5, -1.0, 1e308, float("nan"), float("inf"), -float("inf")))
  if kind in (3, 4, 5):
    return rng.choice(STRINGS)
  if kind == 6:
    return {rng.choice(STRINGS): value(rng, depth + 1) for _ in range(rng.randrange(3))}
  if kind == 7:
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
  deep: Any = []
  for _ in range(rng.choice((5, 100))):
    deep = [deep]
  return deep


def mutated_tree(rng: random.Random, tree: Any) -> Any:
  """A copy in which some nodes are other values, gone, renamed or swapped with a neighbour's."""
  tree = json.loads(json.dumps(tree))
  for _ in range(rng.choice((1, 1, 1, 2, 4))):
    holder, keys = tree, list(_keys(tree))
    if not keys:
      return value(rng)
    while rng.random() < 0.75 and (inner := [key for key in keys if list(_keys(holder[key]))]):
      holder = holder[rng.choice(inner)]
      keys = list(_keys(holder))
    key = rng.choice(keys)
    kind = rng.randrange(5)
    if kind == 0:
      del holder[key]
    elif kind == 1 and isinstance(holder, dict):
      holder[rng.choice(STRINGS) if rng.random() < 0.7 else f"{key}_"] = holder.pop(key)
    elif kind == 2:
      holder[key] = holder[rng.choice(keys)] if rng.random() < 0.5 else rng.choice(STRINGS)
    else:
      holder[key] = value(rng)
  return tree


def json_mutator(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
  """A seed of JSON: mostly its tree mutated, sometimes its bytes, sometimes both."""
  if rng.random() < 0.25:
    return mutated(rng, data, others)
  written = json.dumps(mutated_tree(rng, json.loads(data)), ensure_ascii=rng.random() < 0.7)
  out = written.encode("utf-8", "surrogatepass")
  return mutated(rng, out, others) if rng.random() < 0.15 else out


def headed(pack: Callable[[int], bytes], length_at: int, size: int):
  """A mutator of `prefix, length of the JSON, JSON, rest`: the JSON's tree is mutated, and the length mostly fits."""

  def mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.4:
      return mutated(rng, data, others)
    start = length_at + size
    length = int.from_bytes(data[length_at:start], "little")
    header = json_mutator(rng, data[start : start + length], others)
    claimed = len(header) if rng.random() < 0.8 else rng.choice(NUMBERS) % 256**size
    return data[:length_at] + pack(claimed) + header + data[start + length :]

  return mutate


def tar_mutator(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
  """A tar: fields of its headers replaced and the checksum put right, so that parsing goes on; or just bytes."""
  if rng.random() < 0.3:
    return mutated(rng, data, others)
  out = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 4))):
    at = 512 * rng.randrange(max(1, len(out) // 512))
    block = out[at : at + 512]
    start, stop = rng.choice(((0, 100), (124, 136), (156, 157), (157, 257), (257, 263), (345, 500)))
    field = rng.choice(FIELDS)
    block[start:stop] = field[: stop - start].ljust(stop - start, b"\0")
    if len(block) == 512:
      block[148:156] = b" " * 8
      block[148:156] = b"%06o\0 " % sum(block)
      out[at : at + 512] = block
  return mutated(rng, bytes(out), others) if rng.random() < 0.1 else bytes(out)


def lines_mutator(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
  """Options and values, one a line: mostly values replaced, now and then any bytes."""
  if rng.random() < 0.1:
    return mutated(rng, data, others)
  lines = data.split(b"\n")
  places = [place for place, line in enumerate(lines) if not line.startswith(b"--")]
  for place in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
    kind = rng.randrange(4)
    if kind == 0:
      lines[place] = str(rng.choice(NUMBERS) * rng.choice((1, -1))).encode()
    elif kind == 1:
      lines[place] = rng.choice(STRINGS).encode("utf-8", "surrogatepass")
    elif kind == 2:
      lines[place] = mutated(rng, lines[place], others).replace(b"\n", b" ")
    else:
      lines[place : place + 1] = rng.choice(([], [lines[place]] * 3, [rng.choice(lines)]))
      break  # the places have moved
  return b"\n".join(lines)


def _keys(tree: Any):
  if isinstance(tree, dict):
    return tree.keys()
  return range(len(tree)) if isinstance(tree, list) else ()
