"""Models of the Hugging Face hub: their place in its local cache, and the download that a user asks for."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from mmjax.interop.errors import InteropError

_NAME = re.compile(r"(?:hf[-_]hub:)?((?:[\w.-]+/)?[\w.-]+)")
# Weights that mmjax reads, and the files beside them. Never a pickle.
_FILES = ("*.json", "*.safetensors", "*.npz", "*.txt", "*.model")


def model_name(text: str) -> str | None:
  """Name of a model of the hub, ORG/NAME or (of old models) NAME, with or without "hf-hub:". None for another text."""
  found = _NAME.fullmatch(text)
  return None if found is None or set(found[1]) <= {"."} else found[1]


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
  """Folder of the hub's cache, from the variables that huggingface_hub reads."""
  root = environment.get("XDG_CACHE_HOME", "~/.cache")
  home = environment.get("HF_HOME", str(Path(root) / "huggingface"))
  cache = environment.get("HUGGINGFACE_HUB_CACHE", str(Path(home) / "hub"))
  return Path(os.path.expandvars(environment.get("HF_HUB_CACHE", cache))).expanduser()


def cached(name: str) -> Path | None:
  """Folder of a model in the local cache, with its snapshots. None if it is not there. No network is used."""
  folder = cache_folder() / f"models--{name.replace('/', '--')}"
  return folder if folder.is_dir() else None


def download(path: str | Path) -> Path:
  """Download a model of the hub into the local cache: weights that mmjax reads, and the files beside them.

  What is there already is not downloaded again. Afterwards, the name is a path that `load` reads.

  Args:
    path: name of the model, ORG/NAME.
  Returns: the folder with its files.
  Raises: InteropError: it is no name of a model, huggingface_hub is not installed, or the download fails.
  """
  name = model_name(str(path))
  if name is None or Path(path).expanduser().exists():
    raise InteropError(f"{path} cannot be downloaded: give the name of a model of the Hugging Face hub, ORG/NAME")
  try:
    from huggingface_hub import snapshot_download
  except ImportError as error:
    raise InteropError(f"a download of {name} needs huggingface_hub: pip install 'mmjax[hub]'") from error
  try:
    return Path(snapshot_download(name, cache_dir=cache_folder(), allow_patterns=list(_FILES)))
  except (OSError, ValueError, RuntimeError) as error:  # the base classes of huggingface_hub's errors
    said = str(error).strip().split("\n")[0] or type(error).__name__
    raise InteropError(f"the download of {name} failed: {said}") from error
