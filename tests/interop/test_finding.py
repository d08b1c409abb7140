"""Folders and files as downloads, hubs and other programs leave them: read, or refused with a remedy that works."""

import errno
import json
import shlex
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmjax import interop
from mmjax.interop import InteropError
from tests.interop.hostile import refused, write_clip
from tests.interop.references import assert_same_params, reference


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def folder(clip, tmp_path):
  return shutil.copytree(clip, tmp_path / "copy")


def renamed(folder, name):
  (folder / "model.safetensors").rename(folder / name)
  return folder


def in_shards(folder, variant=""):
  weights = load_file(folder / "model.safetensors")
  (folder / "model.safetensors").unlink()
  names = sorted(weights)
  files = {f"model{variant}-0000{n + 1}-of-00002.safetensors": names[n::2] for n in range(2)}
  for file, held in files.items():
    save_file({name: weights[name] for name in held}, folder / file)
  where = {name: file for file, held in files.items() for name in held}
  index = f"model.safetensors.index{variant}.json"
  (folder / index).write_text(json.dumps({"weight_map": where}))
  return folder


def as_hub(folder, *, main=True):
  root = folder.parent / "models--openai--clip"
  (root / "blobs").mkdir(parents=True)
  (root / "refs").mkdir()
  shutil.copytree(folder, root / "snapshots" / "abc123")
  if main:
    shutil.copytree(folder, root / "snapshots" / "other")
    (root / "refs" / "main").write_text("abc123")
  return root


def as_links(folder):
  """As huggingface_hub leaves it: a snapshot of links to blobs. The name is found in the cache."""
  root = folder.parent / "hub" / "models--openai--clip"
  snapshot = root / "snapshots" / "abc123"
  for part in (root / "blobs", root / "refs", snapshot):
    part.mkdir(parents=True)
  (root / "refs" / "main").write_text("abc123")
  for path in folder.iterdir():
    path.rename(root / "blobs" / path.stem)
    (snapshot / path.name).symlink_to(f"../../blobs/{path.stem}")
  return root


def mixed(folder):
  """A split checkpoint, half in float16 and half in float32."""
  in_shards(folder)
  for path in folder.glob("*-00002-of*"):
    save_file({name: tensor.astype(np.float16) for name, tensor in load_file(path).items()}, path)
  return folder


def prefixed(folder, prefix):
  weights = load_file(folder / "model.safetensors")
  save_file({prefix + name: tensor for name, tensor in weights.items()}, folder / "model.safetensors")
  return folder


READ = {
  "a variant": lambda folder: renamed(folder, "model.fp16.safetensors"),
  "a variant by its path": lambda folder: renamed(folder, "model.fp16.safetensors") / "model.fp16.safetensors",
  "another name": lambda folder: renamed(folder, "weights.safetensors"),
  "a split checkpoint": in_shards,
  "a split variant": lambda folder: in_shards(folder, ".fp16"),
  "the index of a split checkpoint": lambda folder: in_shards(folder) / "model.safetensors.index.json",
  "a model in a hub cache": as_hub,
  "a model in a hub cache, as links": as_links,
  "a model in a hub cache with one snapshot": lambda folder: as_hub(folder, main=False),
  "a checkpoint of DistributedDataParallel": lambda folder: prefixed(folder, "module."),
  "a compiled checkpoint": lambda folder: prefixed(folder, "module._orig_mod."),
}


@pytest.mark.parametrize("case", READ)
def test_what_is_read(case, folder, clip):
  model, params = interop.load(READ[case](folder))
  expected, theirs = interop.load(clip)
  assert model.config == expected.config
  assert_same_params(params, theirs)


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_a_name_is_found_in_the_local_cache(variable, folder, clip, monkeypatch):
  for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
    monkeypatch.delenv(name, raising=False)
  root = as_links(folder)
  cache = {"HF_HOME": root.parent.parent, "XDG_CACHE_HOME": root.parent.parent.parent}.get(variable, root.parent)
  if variable == "XDG_CACHE_HOME":
    root.parent.parent.rename(cache / "huggingface")
  monkeypatch.setenv(variable, str(cache))
  for name in ("openai/clip", "hf-hub:openai/clip"):
    assert_same_params(interop.load(name)[1], interop.load(clip)[1])
  (cache / "clip").mkdir(exist_ok=True)
  refused(lambda: interop.load("openai/clop"), "--download", "has no such model")


def test_only_what_is_asked_for_is_downloaded(folder, clip, monkeypatch):
  """Into the cache, without pickles; afterwards the name is found there."""
  asked = []

  def snapshot_download(name, *, cache_dir, allow_patterns):
    asked.append((name, allow_patterns))
    return as_links(folder) / "snapshots" / "abc123"

  monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
  monkeypatch.setenv("HF_HUB_CACHE", str(folder.parent / "hub"))
  refused(lambda: interop.load("openai/clip"), "does not exist here")
  assert not asked
  assert_same_params(interop.load("openai/clip", download=True)[1], interop.load(clip)[1])
  assert [name for name, _ in asked] == ["openai/clip"] and "*.safetensors" in asked[0][1]
  assert not [pattern for pattern in asked[0][1] if pattern.endswith((".bin", ".pt"))]
  refused(lambda: interop.load(folder.parent, download=True), "cannot be downloaded")


def test_a_download_that_fails_says_why(monkeypatch, tmp_path):
  def fails(*_, **__):
    raise OSError("no network\nand more")

  monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=fails))
  monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
  refused(lambda: interop.load("openai/clip", download=True), "the download of openai/clip failed: no network")
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  refused(lambda: interop.load("openai/clip", download=True), "pip install 'mmjax[hub]'")


def test_shards_of_several_dtypes(folder, clip):
  """Half precision is exact in float32."""
  found, whole = interop.load(mixed(folder))[1], interop.load(clip)[1]
  pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True))
  for mine, other in pairs:
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, other, rtol=1e-3)
  assert any((np.asarray(mine) != np.asarray(other)).any() for mine, other in pairs)


def replaced(folder, data: bytes, name="model.safetensors"):
  (folder / "model.safetensors").unlink(missing_ok=True)
  (folder / name).write_bytes(data)
  return folder


def linked(folder):
  (folder / "model.safetensors").unlink()
  (folder / "model.safetensors").symlink_to("../../blobs/123")
  return folder


def as_folder(folder):
  (folder / "model.safetensors").unlink()
  (folder / "model.safetensors").mkdir()
  return folder


def with_dangling_shard(folder):
  in_shards(folder)
  shard = folder / "model-00001-of-00002.safetensors"
  shard.unlink()
  shard.symlink_to("../../blobs/123")
  return folder


def twice(folder):
  shutil.copy(folder / "model.safetensors", folder / "a.safetensors")
  return renamed(folder, "b.safetensors")


def below(folder, name):
  (folder.parent / "whole" / "scheduler").mkdir(parents=True)
  shutil.copytree(folder, folder.parent / "whole" / name)
  return folder.parent / "whole"


def workdir(folder):
  (folder / "model.safetensors").unlink()
  (folder / "checkpoints").mkdir()
  return folder


def truncated(folder):
  data = (folder / "model.safetensors").read_bytes()
  return replaced(folder, data[: len(data) // 2])


def touched(folder, name):
  (folder / name).write_text("{}")
  return folder


def unreadable(folder):
  loop = folder.parent / "loop"
  loop.symlink_to(loop)
  return loop


def snapshots(folder):
  root = as_hub(folder)
  (root / "refs" / "main").write_text("gone")
  return root


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PICKLE = b"\x80\x02}q\x00."
REFUSED = {
  "a dangling link": (
    linked,
    "model.safetensors is a link to ../../blobs/123, which is not there",
    "Download it again",
  ),
  "a dangling link by its path": (lambda f: linked(f) / "model.safetensors", "is a link to"),
  "a dangling shard": (with_dangling_shard, "00001-of-00002.safetensors is a link to"),
  "a folder in place of a file": (as_folder, "model.safetensors is a folder, not a file"),
  "an empty file": (lambda f: replaced(f, b""), "model.safetensors is empty"),
  "a file cut short": (truncated, "it is truncated"),
  "a git-lfs pointer": (
    lambda f: replaced(f, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "model.safetensors is a pointer of Git LFS in place of the file. Run git lfs pull",
  ),
  "an empty archive": (lambda f: replaced(f, b"", "x.npz"), "x.npz is empty"),
  "a web page": (lambda f: replaced(f, b"\n<!DOCTYPE html><html>"), "is a page of HTML in place of the file"),
  "a pickle with another name": (lambda f: replaced(f, PICKLE), "is a pickle"),
  "a zip with another name": (lambda f: replaced(f, b"PK\x03\x04" + bytes(90)), "is a pickle"),
  "Flax": (
    lambda f: replaced(f, b"x", "flax_model.msgpack"),
    "flax_model.msgpack is weights of Flax",
    "from_flax=True",
  ),
  "TensorFlow": (lambda f: replaced(f, b"x", "tf_model.h5"), "tf_model.h5 is weights of TensorFlow", "from_tf=True"),
  "ONNX": (lambda f: replaced(f, b"x", "model.onnx"), "model.onnx is an ONNX program"),
  "GGUF by its path": (lambda f: replaced(f, b"x", "m.gguf") / "m.gguf", "m.gguf is quantised weights"),
  "an archive": (lambda f: replaced(f, b"x", "clip.tar") / "clip.tar", "is an archive: unpack it"),
  "a configuration": (lambda f: f / "config.json", "is a configuration: give its folder"),
  "several files": (twice, "holds a.safetensors, b.safetensors: give the path of one of them"),
  "a diffusion pipeline": (lambda f: below(f, "text_encoder"), "its folders text_encoder do: give the path"),
  "a hub cache": (lambda f: as_hub(f).parent, "its folders", "models--openai--clip"),
  "a hub cache without its revision": (snapshots, "Give one of its snapshots: abc123, other"),
  "the workdir of a run": (workdir, "is the workdir of a run", "export/mmjax"),
  "an adapter": (lambda f: touched(renamed(f, "adapter_model.safetensors"), "adapter_config.json"), "merge it first"),
  "an adapter beside the weights": (
    lambda f: touched(f, "adapter_config.json"),
    "adapter_config.json is an adapter (LoRA) beside model.safetensors",
    "remove adapter_config.json",
  ),
  "a hub id": (
    lambda f: "openai/clip-vit-base-patch32",
    "hf download openai/clip-vit-base-patch32 --local-dir clip-vit",
  ),
  "an address of the hub": (
    lambda f: "https://huggingface.co/a/b/tree/main",
    "is an address: give the model's name, a/b,",
  ),
  "a path that is not there": (lambda f: "./no/pe", "no/pe does not exist: give a folder with weights"),
  "a git-lfs pointer as configuration": (
    lambda f: (f / "config.json").write_bytes(LFS) and f,
    "config.json is a pointer of Git LFS in place of the file. Run git lfs pull",
  ),
  "Keras": (lambda f: replaced(f, b"x", "model.keras"), "model.keras is weights of Keras"),
  "a checkpoint of TensorFlow": (lambda f: replaced(f, b"x", "model.ckpt.index"), "is a checkpoint of TensorFlow"),
  "Orbax": (lambda f: replaced(f, b"{}", "_METADATA"), "is a checkpoint of Orbax", "export the run"),
  "states of a training only": (lambda f: replaced(f, b"x", "optimizer.pt"), "holds no weights. It needs config.json"),
  "a hub id of open_clip": (lambda f: "hf-hub:laion/CLIP-B32", "hf download laion/CLIP-B32 --local-dir CLIP-B32"),
  "a path for open_clip": (lambda f: f"local-dir:{f}", "give the folder without 'local-dir:'"),
  "no path": (lambda f: "", "is no path"),
  "a path with a null": (lambda f: "a\0b", "is no path"),
  "a link to itself": (unreadable, "loop"),
  "an unknown prefix": (lambda f: prefixed(f, "model."), "remove the prefix 'model.' from the names"),
  "open_clip's weights without their configuration": (
    lambda f: replaced(f, open_clip_weights(), "open_clip_model.safetensors"),
    "put the open_clip_config.json that it was published with beside it",
  ),
  "renamed weights of open_clip without their configuration": (
    lambda f: replaced(f, open_clip_weights(), "laion.safetensors") / "laion.safetensors",
    "but not its buffers (input_resolution, context_length, vocab_size). It may be of open_clip",
  ),
  "weights without any configuration": (
    lambda f: (f / "config.json").unlink() or f,
    "there is no config.json or open_clip_config.json beside it",
  ),
}


def open_clip_weights() -> bytes:
  from safetensors.numpy import save

  names = ("visual.conv1.weight", "text_projection", "ln_final.weight")
  return save({name: np.zeros((1, 1), np.float32) for name in names})


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, folder):
  make, *said = REFUSED[case]
  path = make(folder)
  refused(lambda: interop.load(path), *said)


def test_a_file_that_may_not_be_read(folder, monkeypatch):
  def denied(*_):
    raise PermissionError(errno.EACCES, "Permission denied")

  monkeypatch.setattr("pathlib.Path.open", denied)
  refused(lambda: interop.load(folder), "cannot be read: Permission denied")


def test_an_unknown_model_type_is_answered_with_all_that_are_read(folder):
  config = json.loads((folder / "config.json").read_text())
  for kind, said in (
    ("clop", "'clip', 'clip_text_model', 'clip_vision_model'"),
    ("swinv2", "Swinv2Model"),
  ):
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    refused(lambda: interop.load(folder), repr(kind), said)


def followed(error: InteropError, folder) -> None:
  """Run the command at the end of a message, in the folder that it names."""
  command = shlex.split(str(error).split("convert it once, in ")[1].split(": ", 1)[1])
  assert command[:2] == ["python", "-c"] and str(folder) in str(error)
  subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True)  # `python` may be another one here


def saved(kind, weights, folder):
  import torch

  match kind:
    case "one file":
      torch.save(weights, folder / "pytorch_model.bin")
    case "shards":
      names = sorted(weights)
      for n in range(2):
        torch.save({name: weights[name] for name in names[n::2]}, folder / f"pytorch_model-0000{n + 1}-of-00002.bin")
    case "a training checkpoint":
      state = {f"module.{name}": tensor for name, tensor in weights.items()}
      torch.save({"epoch": 3, "name": "x", "state_dict": state, "optimizer": {}}, folder / "epoch_3.pt")
    case "TorchScript":
      torch.jit.script(scripted(weights)).save(folder / "ViT-B-32.pt")


def scripted(weights):
  import torch

  module = torch.nn.Module()
  for name, tensor in weights.items():
    part = module
    *path, last = name.split(".")
    for step in path:
      if not hasattr(part, step):
        part.add_module(step, torch.nn.Module())
      part = getattr(part, step)
    part.register_buffer(last, tensor)
  return module


@pytest.mark.references
@pytest.mark.parametrize("kind", ["one file", "shards", "a training checkpoint", "TorchScript"])
def test_the_remedy_for_a_pickle_works(kind, folder, clip):
  torch = reference("torch")
  weights = {name: torch.tensor(tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
  (folder / "model.safetensors").unlink()
  saved(kind, weights, folder)
  with pytest.raises(InteropError, match="is a pickle") as error:
    interop.load(folder)
  followed(error.value, folder)
  assert_same_params(interop.load(folder)[1], interop.load(clip)[1])
