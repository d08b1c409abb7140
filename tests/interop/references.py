"""The reference libraries, and what the parity tests share. Weights are random: real ones cannot be had offline."""

import gzip
import importlib.util
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.skips import REFERENCES

REQUIRED = os.environ.get("MMJAX_REFERENCES") == "required"
IMAGES = np.random.default_rng(1).standard_normal((3, 64, 64, 3)).astype(np.float32)

AWKWARD = [
  "",
  " ",
  "a photo of a cat",
  "It's  the DOG's\tbone!!! #1, isn't it?",
  "👩🏽‍🚀 🏳️‍🌈 ❤️ 😀😀😀",
  "東京タワーの写真、ニッポン",
  "مرحبا بالعالم שלום עולם",
  "word " * 2_000,
  "a\x00b\x07c\x1b[31m\u200bd\ufeff\r\n",
  "ｆｕｌｌ ｗｉｄｔｈ “quotes” ﬁne &amp; cafe\u0301",
  "<|endoftext|> <eos> [SEP] </s> <pad>",
]


def reference(name: str):
  """The library, or a skip that says how to get it; an error instead where MMJAX_REFERENCES=required.

  Tests that call it carry the marker `references`, by which .ci/run selects them.
  """
  _declare_torchvision_operators()
  if REQUIRED:
    return importlib.import_module(name)
  return pytest.importorskip(name, reason=REFERENCES)


def _declare_torchvision_operators() -> None:
  """torchvision's wheels are made for CUDA; beside CPU torch it imports once its operators are declared.

  Nothing here runs one of them: only its transforms of Pillow pictures are used.
  """
  if "torchvision" in globals():
    return
  try:
    import torch
  except ImportError:
    return
  library = torch.library.Library("torchvision", "FRAGMENT")
  for name in ("nms", "qnms", "roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"):
    for full in (name, f"_{name}_backward"):
      library.define(f"{full}(Tensor x) -> Tensor")
  globals()["torchvision"] = library  # kept alive: the declarations go with it


_NORMS = ("norm", "norm1", "norm2", "bn", "identity")  # identity: batch norm of a branch (timm's FastViT)


def randomize(model, seed: int = 0) -> None:
  """Random numbers in every parameter and statistic, so that no scale is one and no bias zero."""
  import torch

  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      if tensor.is_floating_point():
        noise = torch.randn(tensor.shape, generator=generator)
        centre = 1.0 if name.endswith(("var", *(f"{norm}.weight" for norm in _NORMS))) else 0.0
        tensor.copy_((centre + 0.2 * noise).abs() if centre else 0.2 * noise)


def embed(model, params, method: str, inputs) -> np.ndarray:
  return np.asarray(jax.jit(lambda p, x: model.apply({"params": p}, x, method=method))(params, inputs))


def assert_close(ours, theirs) -> None:
  """2e-5, and 5e-6 of the embedding's norm where that is more than the first allows for long vectors."""
  theirs = theirs.detach().numpy()
  assert ours.shape == theirs.shape
  limit = max(2e-5, 5e-6 * float(np.linalg.norm(theirs, axis=-1).max()))
  assert np.abs(ours - theirs).max() <= limit, np.abs(ours - theirs).max()


def assert_same_tensors(first: Path, second: Path, *, but: tuple[str, ...] = ()) -> None:
  """Both files hold the same tensors, bit for bit (save for those whose names contain one of `but`)."""
  from safetensors.numpy import load_file

  a, b = load_file(first), load_file(second)
  names = {name for name in a if not any(part in name for part in but)}
  assert names == set(b)
  for name in names:
    assert a[name].tobytes() == b[name].tobytes() and a[name].shape == b[name].shape, name


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
  """OpenAI's CLIP vocabulary: ids and merges, from the file that open_clip ships; or a skip."""
  spec = importlib.util.find_spec("open_clip")
  if spec is None or spec.origin is None:
    pytest.skip(REFERENCES)
  with gzip.open(Path(spec.origin).parent / "bpe_simple_vocab_16e6.txt.gz") as file:
    lines = file.read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
  merges = [(first, second) for first, second in map(str.split, lines)]
  alphabet = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that are shown as themselves; then the rest
  bytes_ = [chr(b) for b in alphabet] + [chr(256 + n) for n in range(256 - len(alphabet))]
  tokens = [*bytes_, *(b + "</w>" for b in bytes_), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
  return {token: number for number, token in enumerate(tokens)}, merges


def assert_same_params(first, second) -> None:
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), first, second)
