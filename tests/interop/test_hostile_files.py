"""Damaged and hostile files: an error that names file or tensor, at once, and nothing allocated for what is claimed."""

import json
import shutil
import tracemalloc
import zipfile

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop import InteropError
from mmjax.interop.npz_file import NpzFile
from mmjax.interop.safetensors_file import SafetensorsFile, write_safetensors
from tests.interop.hostile import HUGE, refused, refused_unallocated, tensor, within_a_second, write, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return write_clip(tmp_path_factory.mktemp("clip"))


HEADERS = {
  "no JSON": (b"{{{", "header is not JSON"),
  "a list": (b"[]", "not a JSON object"),
  "nested without end": (b"[" * 100_000, "header is not JSON"),
  "a number without end": (b'{"x": ' + b"9" * 10_000 + b"}", "header is not JSON"),
  "a name twice": (b'{"x": {}, "x": {}}', "'x' appears twice"),
  "not an object": ({"x": 3}, "'x' is not described by an object"),
  "an unknown dtype": ({"x": tensor(dtype="F31")}, "'x' has the dtype 'F31'"),
  "a huge shape": ({"x": tensor([HUGE, HUGE])}, "'x' has shape"),
  "bytes outside the file": ({"x": tensor([HUGE], 0, 4 * HUGE)}, "'x' claims the bytes 0 to"),
  "a negative shape": ({"x": tensor([-2])}, "'x' has the shape [-2]"),
  "a shape of floats": ({"x": tensor([2.0])}, "'x' has the shape"),
  "offsets backwards": ({"x": tensor((2,), 8, 0)}, "'x' has data_offsets [8, 0]"),
  "a wrong size": ({"x": tensor((3,))}, "'x' has shape [3] of F32, 12 bytes"),
  "overlapping": ({"x": tensor(), "y": tensor((1,), 4, 8)}, "'x' and 'y' overlap"),
  "a gap": ({"x": tensor((1,), 4, 8)}, "4 bytes before the tensor 'x'"),
  "bytes at the end": ({"x": tensor((1,), 0, 4)}, "4 bytes after the last tensor"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_is_believed_only_after_it_is_checked(case, tmp_path):
  header, message = HEADERS[case]
  path = write(tmp_path / "model.safetensors", header, bytes(8))
  tracemalloc.start()
  try:
    refused(lambda: SafetensorsFile(path), message, path.name)
    assert tracemalloc.get_traced_memory()[1] < 30e6
  finally:
    tracemalloc.stop()


def test_truncated_anywhere(tmp_path):
  whole = write(tmp_path / "whole.safetensors", {"x": tensor()}, bytes(8)).read_bytes()
  SafetensorsFile(tmp_path / "whole.safetensors")
  for length in range(len(whole)):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[:length])
    refused(lambda path=path: SafetensorsFile(path), "truncated", "cut.safetensors")
  (tmp_path / "long.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
  refused(lambda: SafetensorsFile(tmp_path / "long.safetensors"), f"claims {2**62} bytes")


def test_a_header_of_many_tensors_is_read_or_refused_within_a_second(tmp_path):
  nothing = json.dumps(tensor((0,), 0, 0))

  def header(count, more=""):
    return ("{" + ",".join(f'"{n:06}": {nothing}' for n in range(count)) + more + "}").encode()

  most, more = (
    write(tmp_path / "most.safetensors", header(20_000)),
    write(tmp_path / "more.safetensors", header(30_000)),
  )
  with within_a_second():
    assert len(SafetensorsFile(most).entries) == 20_000
  refused(lambda: SafetensorsFile(more), "describes 30000 tensors; more than 20000 are refused")
  twice = write(tmp_path / "twice.safetensors", header(30_000, ', "000007": {}'))
  refused(lambda: SafetensorsFile(twice), "'000007' appears twice")
  refused(lambda: SafetensorsFile(write(tmp_path / "long.safetensors", b" " * 6_000_000)), "claims 6000000 bytes")


@pytest.mark.parametrize("kind", [SafetensorsFile, NpzFile])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(kind, tmp_path):
  """Bytes changed, lost and put in, three hundred times: whatever it becomes, no other error escapes."""
  rng, path = np.random.default_rng(0), tmp_path / "file"
  arrays = {f"a.{n}": np.arange(50, dtype=np.float32) for n in range(4)}
  if kind is SafetensorsFile:
    write_safetensors(path, arrays, {"format": "pt"})
  else:
    with path.open("wb") as file:
      np.savez_compressed(file, **arrays)
  whole, refusals = path.read_bytes(), 0
  for _ in range(300):
    data, place = bytearray(whole), int(rng.integers(len(whole)))
    data[place : place + int(rng.integers(4))] = rng.bytes(int(rng.integers(4)))
    path.write_bytes(data)
    try:
      file = kind(path)
      for name in file.entries:
        file.read(name)
    except InteropError:
      refusals += 1
  assert 100 < refusals < 300


def test_npz_is_never_unpickled_nor_believed(tmp_path):
  np.savez(tmp_path / "good.npz", x=np.zeros(3, np.float32))
  assert NpzFile(tmp_path / "good.npz").read("x").shape == (3,)
  np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
  refused(lambda: NpzFile(tmp_path / "objects.npz"), "'x' has the dtype object", "nothing is unpickled")
  (tmp_path / "cut.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:-30])
  refused(lambda: NpzFile(tmp_path / "cut.npz"), "not a complete .npz file")
  np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(2_000_000, np.float32))
  refused(lambda: NpzFile(tmp_path / "bomb.npz"), "'x' claims", "zip bomb")
  header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999,), }".ljust(
    118
  )
  with zipfile.ZipFile(tmp_path / "claims.npz", "w") as file:
    file.writestr("x.npy", header)
  refused(lambda: NpzFile(tmp_path / "claims.npz"), "'x' claims shape (999999999999,)")


def test_a_truncated_body(clip, tmp_path):
  """Cut anywhere behind its header, a checkpoint is refused by name before anything is made of it."""
  folder = shutil.copytree(clip, tmp_path / "clip")
  path = folder / "model.safetensors"
  whole = path.read_bytes()
  start = 8 + int.from_bytes(whole[:8], "little")
  for length in (start, start + 1, (start + len(whole)) // 2, len(whole) - 1):
    path.write_bytes(whole[:length])
    refused_unallocated(lambda: interop.load(folder), "model.safetensors: the tensor", "it is truncated")
  path.write_bytes(whole + b"\0")
  refused_unallocated(lambda: interop.load(folder), "1 bytes after the last tensor")


def entry(name, shape, size=0):
  return {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}


HUGE_BODIES = {
  "a shape that fills no disk": (entry("logit_scale", [HUGE], 4 * HUGE), "claims the bytes 0 to", "it is truncated"),
  "a huge shape of nothing": (entry("logit_scale", [HUGE, 0]), "has no tensor"),
  "huge shapes of nothing": (entry("logit_scale", [HUGE, HUGE, HUGE, 0]), "has no tensor"),
  "no tensors at all": ({}, "holds 0 tensors, but its configuration claims 2 layers"),
}


@pytest.mark.parametrize("case", HUGE_BODIES)
def test_a_body_that_is_not_what_the_configuration_asks_for(case, clip, tmp_path):
  """Also loaded in part, and into shards: nothing is allocated for what a header or a configuration claims."""
  header, *said = HUGE_BODIES[case]
  shutil.copy(clip / "config.json", tmp_path)
  write(tmp_path / "model.safetensors", {f"x{n}": tensor((0,), 0, 0) for n in range(4 * bool(header))} | header)
  refused_unallocated(lambda: interop.load(tmp_path), *said)
  shapes = {"logit_scale": jax.ShapeDtypeStruct((), np.float32)}
  refused_unallocated(lambda: interop.restore(tmp_path, shapes), str(tmp_path))


def test_a_huge_configuration_over_few_tensors(clip, tmp_path):
  """A vocabulary, a picture and a width that would fill the memory: only their shapes are ever made."""
  folder = shutil.copytree(clip, tmp_path / "clip")
  config = json.loads((folder / "config.json").read_text())
  for tower, fields, *said in (
    ("text_config", dict(vocab_size=2**24, hidden_size=2**23, max_position_embeddings=2**24), "has shape", "asks for"),
    ("vision_config", dict(image_size=2**14, hidden_size=2**23, intermediate_size=2**24), "has shape", "asks for"),
    ("vision_config", dict(image_size=2**24, hidden_size=2**23), "'image/position_embedding'", "too large"),
  ):
    (folder / "config.json").write_text(json.dumps(config | {tower: config[tower] | fields}))
    refused_unallocated(lambda: interop.load(folder), *said)


def test_layers_stacked_without_end(tmp_path):
  np.savez(tmp_path / "x.npz", **{"Transformer/encoderblock/LayerNorm_0/scale": np.zeros((100_000, 0), np.float32)})
  refused_unallocated(lambda: interop.load(tmp_path / "x.npz"), "stacks 100000 layers; more than 1000 are refused")
