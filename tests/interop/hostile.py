"""What tests of hostile files share: how to write one, how it must be refused, and a good one."""

import contextlib
import gc
import json
import resource
import time
import tracemalloc

import numpy as np
import pytest

from mmjax import interop
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop import InteropError
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.models import TwoTowerConfig

HUGE = 2**50


def write(path, header, data=b""):
  raw = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
  return path


def tensor(shape=(2,), begin=0, end=8, dtype="F32"):
  return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@contextlib.contextmanager
def within_a_second():
  """Of this thread's time, without the collector's: it looks at all that other tests left behind as well."""
  gc.disable()
  try:
    start = time.thread_time()
    yield
    assert time.thread_time() - start < 1
  finally:
    gc.enable()


def refused(action, *said):
  """An InteropError with these words, within a second."""
  with within_a_second(), pytest.raises(InteropError) as error:
    action()
  for words in said:
    assert words in str(error.value), error.value


def refused_unallocated(action, *said):
  """As `refused`; and with less than 30 MB more memory than before, of Python's and NumPy's or of the process."""
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in kB
  refused(action, *said)
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30e3
  tracemalloc.start()  # which makes everything slower: not timed
  try:
    with pytest.raises(InteropError):
      action()
    assert tracemalloc.get_traced_memory()[1] < 30e6
  finally:
    tracemalloc.stop()


def write_clip(folder):
  """A small CLIPModel, written by us."""
  tower = dict(width=8, depth=1, num_heads=2, norm_epsilon=1e-5)
  config = TwoTowerConfig(
    image=ViTConfig(
      **tower, image_size=8, patch_size=4, pool="cls", input_norm=True, class_position=True, stem_bias=False
    ),
    text=TextConfig(**tower, vocab_size=20, max_length=6, eos_id=19),
    embed_dim=4,
  )
  rng = np.random.default_rng(0)
  params = {n: rng.standard_normal(s).astype(np.float32) for n, s in flat_shapes(config).items()}
  interop.save(config.build(), unflatten(params), folder)
  interop.load(folder)  # JAX is warm: what follows is timed
  return folder
