"""Finding the files of a checkpoint, and telling what to do about files that mmjax does not read."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mmjax.data.downloads import instead
from mmjax.interop.errors import InteropError
from mmjax.interop.hub import cache_folder, cached, model_name

OPEN_CLIP_CONFIG, CONFIG, WEIGHTS, INDEX = (
  "open_clip_config.json",
  "config.json",
  "model.safetensors",
  "model.safetensors.index.json",
)
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_TO_TRANSFORMERS = (
  "convert it once with transformers 4: python -c \"from transformers import AutoModel; AutoModel.from_pretrained('.', "
  "{}=True).save_pretrained('converted')\""
)
_OTHERS = {
  ".msgpack": "weights of Flax: " + _TO_TRANSFORMERS.format("from_flax"),
  ".h5": "weights of TensorFlow: " + _TO_TRANSFORMERS.format("from_tf"),
  ".keras": "weights of Keras: save the tensors under the names of transformers or open_clip as .safetensors",
  ".index": "a checkpoint of TensorFlow: " + _TO_TRANSFORMERS.format("from_tf"),
  ".onnx": "an ONNX program: download the weights that it was exported from",
  ".gguf": "quantised weights for llama.cpp: download the original ones",
  ".zip": "an archive: unpack it, and give the folder",
  ".gz": "an archive: unpack it, and give the folder",
  ".tar": "an archive: unpack it, and give the folder",
  ".json": "a configuration: give its folder",
}
_LOAD = "torch.load({}, map_location='cpu', weights_only=True)"
_HUB = "https://huggingface.co/"
_STATES = ("optimizer", "scheduler", "training_args", "rng_state", "random_states", "scaler")
"""Beginnings of the names of files of a training, beside its weights."""
_ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
_ADAPTER = "adapter_config.json"
_SUFFIXES = (".safetensors", ".npz")


def existing(path: str | Path) -> Path:
  """Path of a checkpoint: a file, or a folder; of a model in a hub cache, the folder of its snapshot.

  ORG/NAME, if it is no path, is a model in the local cache of the Hugging Face hub. No network is used.

  Raises: InteropError: there is none. The message says how to get one.
  """
  text = str(path)
  if not text or "\0" in text:
    raise InteropError(f"{text!r} is no path: give a folder with weights, a .safetensors or a .npz file")
  path = Path(path).expanduser()
  try:
    if path.is_symlink() and not path.exists():
      raise _dangling(path)
    found = path.exists()
  except OSError as error:
    raise InteropError(f"{path} cannot be read: {error.strerror}") from error
  if found:
    return _snapshot(path) if path.is_dir() else path
  if text.startswith(_HUB):
    parts = text.removeprefix(_HUB).split("/")
    raise InteropError(f"{text} is an address: give the model's name, {'/'.join(parts[:2])}, or a folder")
  name = None if text.startswith((".", "/", "~")) else model_name(text)
  there = None if name is None else cached(name)
  if there is not None:
    return _snapshot(there)
  if name is not None and "/" in name:
    raise InteropError(
      f"{text} does not exist here, and the hub's cache {cache_folder()} has no such model. If it is a model of the "
      f"Hugging Face hub, set --download (in Python, download=True; in a run, --pretrained.download): mmjax downloads "
      f"nothing else. Or download it yourself (hf download {name} --local-dir {name.split('/')[1]}) and give that "
      "folder"
    )
  if text.startswith("local-dir:"):
    raise InteropError(f"{text} does not exist: give the folder without 'local-dir:'")
  raise InteropError(f"{path} does not exist: give a folder with weights, a .safetensors or a .npz file")


def weights_in(folder: Path) -> Path:
  """Find the weights in a folder: a .safetensors or .npz file, or the index of a split checkpoint.

  Raises: InteropError: there are none, or more than one. The message names what there is, and the remedy.
  """
  try:
    names = sorted(p.name for p in folder.iterdir())
  except OSError as error:
    raise InteropError(f"{folder} cannot be read: {error.strerror}") from error
  has_config, has_open_clip = CONFIG in names, OPEN_CLIP_CONFIG in names
  preferred = (*OPEN_CLIP_WEIGHTS, *([] if has_config else [WEIGHTS])) if has_open_clip else ()
  for name in (*preferred, *((WEIGHTS, INDEX) if has_config else ())):
    if name in names:
      if _ADAPTER in names:
        raise InteropError(
          f"{folder / _ADAPTER} is an adapter (LoRA) beside {name}, which transformers would apply. Merge it (in peft, "
          f"merge_and_unload) and save the model. If {name} holds it already, remove {_ADAPTER}"
        )
      return folder / name
  _refuse_other_folders(folder, names)
  single = [n for n in names if n.endswith(_SUFFIXES) and not _SHARD.search(n)]
  indices = [n for n in names if ".safetensors.index." in n and n.endswith(".json")]  # of a variant, such as fp16
  found = single or indices
  if len(found) == 1:
    return folder / found[0]
  if found:
    raise InteropError(f"{folder} holds {', '.join(found)}: give the path of one of them")
  raise _nothing(folder, names)


def check_weights(path: Path) -> None:
  """Raise InteropError if a path is not a file with weights that mmjax reads. The message says how to make one."""
  if path.is_symlink() and not path.exists():
    raise _dangling(path)
  if path.is_dir():
    raise InteropError(f"{path} is a folder, not a file with weights: give the path of the file")
  if path.suffix in _PICKLES:
    raise refused(path)
  try:
    with path.open("rb") as file:
      head = file.read(512)
  except OSError as error:
    raise InteropError(f"{path} cannot be read: {error.strerror}") from error
  if not head:
    raise InteropError(f"{path} is empty: download or export the file again")
  found = instead(head)
  if found is not None:
    raise InteropError(f"{path} {found}")
  if head.lstrip()[:1] == b"<":
    raise InteropError(f"{path} is a web page, not weights: download the file itself again")
  if path.suffix in _OTHERS:
    raise InteropError(f"{path} is {_OTHERS[path.suffix]}")
  if path.suffix not in _SUFFIXES:
    raise InteropError(f"{path} is neither a .safetensors nor a .npz file")
  if path.suffix == ".safetensors" and head[8:9] != b"{" and head.startswith((b"PK\x03\x04", b"\x80")):
    raise refused(path)


def inside(folder: Path, name: str, where: str) -> Path:
  """Path of a file that a JSON file names.

  Args:
    folder: folder that must contain the file, directly or in a subfolder.
    name: name of the file.
    where: place of the name, for error messages.
  Raises: InteropError: the name leads out of the folder, or there is no such file.
  """
  pure = PurePosixPath(name)
  if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
    raise InteropError(f"{where} names the file {name!r}, which leads out of the folder {folder}")
  path = folder / pure
  if path.is_symlink() and not path.exists():
    raise _dangling(path)
  if not path.is_file():
    raise InteropError(f"{where} names the file {name!r}, which is not in {folder}")
  return path


def refused(path: Path) -> InteropError:
  """Error for a pickle, with the command that converts it."""
  return InteropError(
    f"{path} is refused: a {path.suffix} file is a pickle, which runs code when it is opened. If you trust it and "
    f'have PyTorch, convert it once, in {path.parent}: python -c "{_recipe(path)}"'
  )


def _recipe(path: Path) -> str:
  """Program that converts a pickle of PyTorch, for a shell's double quotes."""
  save = (
    "w = next((w[n] for n in ('state_dict', 'model_state_dict', 'model') if isinstance(w.get(n), dict)), w); "
    "save_file({k.removeprefix('module.'): v.clone().contiguous() for k, v in w.items() if hasattr(v, 'clone')}, "
    "'model.safetensors')"
  )
  start = "import glob, torch; from safetensors.torch import save_file; "
  if _SHARD.search(path.name):
    parts = _SHARD.sub("-*.", path.name)
    load = f"w = {{}}; [w.update({_LOAD.format('f')}) for f in sorted(glob.glob('{parts}'))]; "
  elif _is_torchscript(path):
    load = f"w = torch.jit.load('{path.name}', map_location='cpu').state_dict(); "
  else:
    load = f"w = {_LOAD.format(repr(path.name))}; "
  return start + load + save


def _is_torchscript(path: Path) -> bool:
  """True for an archive of TorchScript, which torch.load(weights_only=True) does not read."""
  import zipfile

  try:
    with zipfile.ZipFile(path) as archive:
      return any(name.endswith("/constants.pkl") for name in archive.namelist())
  except (OSError, ValueError, zipfile.BadZipFile):
    return False


def _snapshot(folder: Path) -> Path:
  """The folder of the snapshot, if this is a model's folder in a hub cache (models--OWNER--NAME)."""
  snapshots = folder / "snapshots"
  if not (snapshots.is_dir() and ((folder / "refs").is_dir() or (folder / "blobs").is_dir())):
    return folder
  main = folder / "refs" / "main"
  if main.is_file() and (snapshots / main.read_text(encoding="utf-8").strip()).is_dir():
    return snapshots / main.read_text(encoding="utf-8").strip()
  found = sorted(p for p in snapshots.iterdir() if p.is_dir())
  if len(found) != 1:
    names = ", ".join(p.name for p in found) or "none: the download is not complete"
    raise InteropError(f"{folder} is a model of a hub cache. Give one of its snapshots: {names}")
  return found[0]


def _dangling(path: Path) -> InteropError:
  return InteropError(
    f"{path} is a link to {path.readlink()}, which is not there: the download is not complete, or the file was moved. "
    "Download it again"
  )


def _refuse_other_folders(folder: Path, names: list[str]) -> None:
  """Raise InteropError for a run of mmjax, and for an adapter."""
  if "checkpoints" in names and "config.json" in names and not any(n.endswith(_SUFFIXES) for n in names):
    raise InteropError(
      f"{folder} is the workdir of a run. Export it first (`python experiments/NAME.py export --run.workdir {folder}`) "
      f"and give {folder / 'export' / 'mmjax'}"
    )
  if _ADAPTER in names:
    raise InteropError(
      f"{folder} holds an adapter (LoRA), not a model: merge it first (in peft, merge_and_unload), and save the model"
    )


def _nothing(folder: Path, names: list[str]) -> InteropError:
  """Error for a folder without weights that mmjax reads."""
  if any(name in names for name in _ORBAX):
    return InteropError(
      f"{folder} is a checkpoint of Orbax. If a run of mmjax wrote it, export the run "
      "(`python experiments/NAME.py export --run.workdir WORKDIR`). Otherwise save its arrays as .safetensors"
    )
  pickles = [n for n in names if n.endswith(_PICKLES) and not n.startswith(_STATES)]
  pickles.sort(key=lambda n: not n.startswith(("pytorch_model", "open_clip_pytorch_model")))
  if pickles:
    return refused(folder / pickles[0])
  for name in names:
    if Path(name).suffix in _OTHERS and Path(name).suffix != ".json":
      return InteropError(f"{folder / name} is {_OTHERS[Path(name).suffix]}")
  below = list(_below(folder))
  if below:
    return InteropError(
      f"{folder} holds no weights, but its folders {', '.join(below)} do: give the path of one of them"
    )
  return InteropError(
    f"{folder} holds no weights. It needs {CONFIG} with {WEIGHTS}, {OPEN_CLIP_CONFIG} with {OPEN_CLIP_WEIGHTS[0]}, "
    "or one .safetensors or .npz file"
  )


def _below(folder: Path) -> Iterator[str]:
  """Names of the first folders in a folder that hold weights, or models of a hub cache."""
  children = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
  for child in children[:100]:
    if child.name.startswith("models--") or any(p.suffix in (*_SUFFIXES, *_PICKLES) for p in child.iterdir()):
      yield child.name
