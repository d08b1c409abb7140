"""Seconds per generated token against the length of the text, with the key-value cache and without it.

A decoder that reads an image of `--context` tokens, as a captioner does. With the cache, a step reads one token: at
some place of a cache of `--longest` tokens, or at the end of a cache as long as the text. Without it, a step reads the
whole text again. Prints a table of the least CPU times, for the batch as a whole.

  python scripts/benchmarks/generation.py --width 256 --depth 4 --batch 8 --longest 512

| length | cache of the longest | cache of that length | without a cache |
|---|---|---|---|
| 32 | 11.47 ms | 3.71 ms | 53.10 ms |
| 64 | 10.24 ms | 6.09 ms | 86.77 ms |
| 128 | 10.00 ms | 6.66 ms | 307.35 ms |
| 256 | 12.19 ms | 8.09 ms | 495.76 ms |
| 512 | 9.14 ms | 9.95 ms | 984.21 ms |

(Medians of the clock; float32, vocabulary 8,192, two cores, alone on the machine, 22 November 2026.) A token costs the
same wherever it stands in a cache. A cache 16 times as long makes a step 2.7 times as long: that is reading its keys
and values (33 MB).

--check compares the run with that, names what does not hold, and ends with status 1 if there is anything.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.models.seq2seq import Seq2Seq, Seq2SeqConfig
from mmjax.nn.words import WordsConfig
from mmjax.types import Encoded

TINY = {"width": 64, "depth": 1, "vocab": 64, "batch": 2, "context": 4, "longest": 512, "halvings": 1, "repeats": 20}
# Bounds of --check, from the table above. The cache makes a token faster by the text's length over 4 to 8; half of
# that is the bound. From the first place to the last a token costs .8 times as much; a cost that grew with the place
# would make it 2.7 times, as a cache of that length does.
# A step of --tiny is mostly the call of a program, .45 ms: the cache makes it faster by the length over 40.
LEAST_GAIN, LEAST_TINY_GAIN, MOST_GROWTH = 1 / 16, 1 / 128, 1.5


def least_seconds(step: Callable[[], jax.Array], repeats: int) -> float:
  """The least CPU time over `repeats` calls, after two that compile and warm up. Other work only adds to it."""
  seconds = []
  for _ in range(repeats + 2):
    start = time.process_time()
    jax.block_until_ready(step())
    seconds.append(time.process_time() - start)
  return min(seconds[2:])


def measure(args: argparse.Namespace) -> list[tuple[int, float, float, float]]:
  """(length, seconds in the long cache, in a cache of that length, without a cache), per token of the whole batch."""
  words = WordsConfig(
    vocab_size=args.vocab, max_length=args.longest, width=args.width, depth=args.depth, num_heads=args.width // 64
  )
  model = Seq2Seq(Seq2SeqConfig(words, encoder_depth=1))
  rng = np.random.default_rng(0)
  ids = jnp.asarray(rng.integers(2, args.vocab, (args.batch, args.longest)), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0), {"text": ids[:, :8]})["params"]
  context = jnp.asarray(rng.standard_normal((args.batch, args.context, args.width)), jnp.float32)
  image = Encoded(context, jnp.ones(context.shape[:2], bool), context[:, 0])
  apply: Any = functools.partial(model.apply, method="decode")
  decode = jax.jit(lambda p, ids, image, cache: apply({"params": p}, ids, image, cache=cache))
  whole = jax.jit(lambda p, ids, image: apply({"params": p}, ids, image)[:, -1])
  # As in the loop of `generate`, the cache's buffers are updated where they lie.
  one = jax.jit(lambda p, ids, cache: apply({"params": p}, ids, None, cache=cache), donate_argnums=2)

  def cached(length: int, room: int) -> float:
    """One more token after `length - 1`, in a cache of `room`."""
    _, cache = decode(params, ids[:, : length - 1], image, model.empty_cache(args.batch, room))
    place = jnp.full((args.batch,), length - 1, jnp.int32)
    held = [cache]

    def step() -> jax.Array:
      logits, cache = one(params, ids[:, length - 1 : length], held[0].replace(length=place + 0))
      held[0] = cache
      return logits

    return least_seconds(step, args.repeats)

  lengths = [args.longest >> i for i in range(args.halvings, -1, -1)]
  few = max(3, args.repeats // 10)
  without = [least_seconds(functools.partial(whole, params, ids[:, :n], image), few) for n in lengths]
  return [(n, cached(n, args.longest), cached(n, n), slow) for n, slow in zip(lengths, without, strict=True)]


def missed(rows: list[tuple[int, float, float, float]], least_gain: float = LEAST_GAIN) -> list[str]:
  """A sentence for each bound that the rows of `measure` do not keep. `least_gain` is per token of a text's length."""
  faults = [
    f"at {length} tokens the cache makes one {slow / cached:.1f} times as fast; the bound is {least_gain * length:g}"
    for length, cached, _, slow in rows
    if slow / cached < least_gain * length
  ]
  (first, begun, *_), (last, ended, *_) = rows[0], rows[-1]
  if first == last:
    faults.append("one length shows no growth: --halvings must be 1 or more")
  if ended / begun > MOST_GROWTH:
    growth = f"{ended / begun:.2f} times what it takes at {first}; the bound is {MOST_GROWTH:g}"
    faults.append(f"at {last} tokens a token takes {growth}")
  return faults


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--width", type=int, default=256, help="a multiple of 64")
  parser.add_argument("--depth", type=int, default=4)
  parser.add_argument("--vocab", type=int, default=8192)
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--context", type=int, default=64, help="tokens of the image")
  parser.add_argument("--longest", type=int, default=512, help="tokens of the longest text")
  parser.add_argument("--halvings", type=int, default=4, help="shorter texts: longest / 2, / 4, ...")
  parser.add_argument("--repeats", type=int, default=50)
  parser.add_argument("--check", action="store_true", help="fail where the table above does not hold")
  parser.add_argument("--tiny", action="store_true", help="a small decoder, with bounds of its own")
  args = parser.parse_args()
  if args.tiny:
    parser.set_defaults(**TINY)
    args = parser.parse_args()
  rows = measure(args)
  print("| length | cache of the longest | cache of that length | without a cache |")
  print("|---|---|---|---|")
  for length, *seconds in rows:
    print(f"| {length} | " + " | ".join(f"{1e3 * s:.2f} ms" for s in seconds) + " |")
  if args.check and (faults := missed(rows, LEAST_TINY_GAIN if args.tiny else LEAST_GAIN)):
    sys.exit("\n".join(faults))


if __name__ == "__main__":
  main()
