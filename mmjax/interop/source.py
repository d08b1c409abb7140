"""Detection of a checkpoint: its files, its architecture and its mmjax configuration."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mmjax.encoders import TextConfig
from mmjax.interop import settings
from mmjax.interop.architecture import Architecture
from mmjax.interop.big_vision import BIG_VISION
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.mapping import Table
from mmjax.interop.native import NATIVE
from mmjax.interop.npz_file import NpzFile
from mmjax.interop.open_clip import OPEN_CLIP
from mmjax.interop.open_clip_coca import OPEN_CLIP_COCA
from mmjax.interop.openai import OPENAI
from mmjax.interop.resample import Resampling
from mmjax.interop.safetensors_file import SafetensorsFile
from mmjax.interop.sentence import read_pooling
from mmjax.interop.shapes import ModelConfig, depth, flat_shapes
from mmjax.interop.tensors import Renamed, Shards, TensorFile, Unstacked
from mmjax.interop.transformers_blip import kind as blip_kind
from mmjax.interop.transformers_single import BERT, VIT
from mmjax.interop.transformers_towers import CLIP, SIGLIP, SIGLIP2

TRANSFORMERS: Mapping[str, Architecture] = {
  "clip": CLIP,
  "siglip": SIGLIP,
  "siglip2": SIGLIP2,
  "vit": VIT,
  "bert": BERT,
}
OPEN_CLIP_CONFIG, CONFIG, WEIGHTS, INDEX = (
  "open_clip_config.json",
  "config.json",
  "model.safetensors",
  "model.safetensors.index.json",
)
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_MAX_DEPTH = 1_000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_LATER = {"blip_text_model": "BlipTextModel", "blip_vision_model": "BlipVisionModel", "flava": "FlavaModel"}


@dataclasses.dataclass(frozen=True)
class Source:
  """A checkpoint on disk, whose configuration is known and whose tensors are not read yet.

  Attributes:
    path: path of the checkpoint.
    folder: folder of the files beside the weights (tokenizer, preprocessing).
    format: "transformers", "open_clip", "openai", "big_vision" or "mmjax".
    architecture: the external architecture.
    file: the tensors.
    fields: the configuration file; empty if the format has none.
    config: the mmjax configuration.
    table: mapping of the parameters to the tensors.
    resampling: filter of image positions for another image size.
  """

  path: Path
  folder: Path
  format: str
  architecture: Architecture
  file: TensorFile
  fields: Fields
  config: ModelConfig
  table: Table
  resampling: Resampling = "antialiased"


def open_source(path: str | Path) -> Source:
  """Find the files of a checkpoint and read its configuration.

  Names and shapes of tensors are not checked here. `mapping.check` checks them.

  Raises:
    InteropError: there is no checkpoint, it is a pickle, a file is damaged, or the architecture or a setting is not
      supported.
  """
  path = _existing(path)
  folder = path if path.is_dir() else path.parent
  format_, file, fields = _open_folder(path) if path.is_dir() else _open_file(path)
  architecture = _architecture(format_, fields, file)
  if architecture is BIG_VISION:
    file = Unstacked(file, "encoderblock/", "encoderblock_{}/")
  if architecture.renamed:
    file = Renamed(file, architecture.renamed)
  model_fields = fields.object("model_cfg") if format_ == "open_clip" else fields
  config = _config(architecture, model_fields, file)
  if format_ == "transformers":
    finish_model(fields)
  if isinstance(config, TextConfig) and architecture is BERT:
    config = read_pooling(config, folder)
  _check_depth(config, file)
  try:
    table = Table(architecture.rules(config), flat_shapes(config))
  except (ValueError, TypeError, OverflowError) as error:
    raise InteropError(f"{fields.where}: the configuration is not valid: {error}") from error
  return Source(path, folder, format_, architecture, file, fields, config, table)


def finish_model(fields: Fields) -> None:
  """Raise InteropError for a field of transformers' config.json that is neither read nor known to have no effect."""
  for part in (fields, *fields.parts.values()):
    part.finish(settings.MODEL)


def open_tensors(path: str | Path) -> TensorFile:
  """Open the tensors of a checkpoint of any architecture. Raises InteropError if there are none."""
  path = _existing(path)
  if path.is_dir():
    return _open_folder(path)[1]
  if path.suffix in _PICKLES:
    raise _refused(path)
  return NpzFile(path) if path.suffix == ".npz" else SafetensorsFile(path)


def _existing(path: str | Path) -> Path:
  path = Path(path).expanduser()
  if not path.exists():
    raise InteropError(f"{path} does not exist: give a folder with weights, a .safetensors or a .npz file")
  return path


def _open_folder(folder: Path) -> tuple[str, TensorFile, Fields]:
  has_config, has_open_clip = (folder / CONFIG).exists(), (folder / OPEN_CLIP_CONFIG).exists()
  if has_open_clip:
    names = _OPEN_CLIP_WEIGHTS if has_config else (*_OPEN_CLIP_WEIGHTS, WEIGHTS)
    for name in names:
      if (folder / name).exists():
        return "open_clip", SafetensorsFile(folder / name), read_json(folder / OPEN_CLIP_CONFIG)
  if has_config and (folder / INDEX).exists() and not (folder / WEIGHTS).exists():
    return _with_config(_shards(folder), read_json(folder / CONFIG))
  if has_config and (folder / WEIGHTS).exists():
    return _with_config(SafetensorsFile(folder / WEIGHTS), read_json(folder / CONFIG))
  single = sorted([*folder.glob("*.npz"), *folder.glob("*.safetensors")])
  if len(single) == 1:
    return _open_file(single[0])
  pickles = sorted(p for p in folder.iterdir() if p.suffix in _PICKLES)
  if pickles:
    raise _refused(pickles[0])
  raise InteropError(
    f"{folder} holds no weights. It needs {CONFIG} with {WEIGHTS}, {OPEN_CLIP_CONFIG} with {_OPEN_CLIP_WEIGHTS[0]}, "
    f"or one .safetensors or .npz file ({len(single)} found)"
  )


def _open_file(path: Path) -> tuple[str, TensorFile, Fields]:
  if path.suffix in _PICKLES:
    raise _refused(path)
  if path.suffix == ".npz":
    return "big_vision", NpzFile(path), Fields({}, str(path))
  if path.suffix != ".safetensors":
    raise InteropError(f"{path} is neither a .safetensors nor a .npz file")
  file = SafetensorsFile(path)
  if (path.parent / OPEN_CLIP_CONFIG).exists() and "visual.conv1.weight" in file.entries:
    return "open_clip", file, read_json(path.parent / OPEN_CLIP_CONFIG)
  if (path.parent / CONFIG).exists() and path.name == WEIGHTS:
    return _with_config(file, read_json(path.parent / CONFIG))
  if "visual.conv1.weight" in file.entries and "text_projection" in file.entries:
    return "openai", file, Fields({}, str(path))
  raise InteropError(
    f"{path} does not have the tensors of OpenAI's CLIP, and there is no {CONFIG} or {OPEN_CLIP_CONFIG} for it"
  )


def _with_config(file: TensorFile, fields: Fields) -> tuple[str, TensorFile, Fields]:
  return ("mmjax" if "mmjax_model" in fields else "transformers"), file, fields


def _architecture(format_: str, fields: Fields, file: TensorFile) -> Architecture:
  match format_:
    case "open_clip":
      return OPEN_CLIP_COCA if "multimodal_cfg" in fields.object("model_cfg") else OPEN_CLIP
    case "openai":
      return OPENAI
    case "big_vision":
      return BIG_VISION
    case "mmjax":
      return NATIVE
  kind = fields.text("model_type")
  if kind == "blip":
    return blip_kind(file.entries, fields.where)
  if kind in _LATER:
    raise InteropError(f"{fields.where}: model_type {kind!r} is {_LATER[kind]}, which mmjax has no model for yet")
  return fields.choice("model_type", TRANSFORMERS)


def _config(architecture: Architecture, fields: Fields, file: TensorFile) -> ModelConfig:
  try:
    return architecture.read(fields, file.entries)
  except InteropError:
    raise
  except KeyError as error:
    raise InteropError(f"{file.path} is not {architecture.name}: it has no tensor {error}") from error
  except (ValueError, IndexError) as error:
    raise InteropError(f"{fields.where}: {error}") from error


def _check_depth(config: ModelConfig, file: TensorFile) -> None:
  """Refuse a configuration that claims more layers than the file has tensors, or more than _MAX_DEPTH.

  A wrong configuration may claim a billion layers.
  """
  claimed = depth(config)
  if claimed > len(file.entries):
    raise InteropError(f"{file.path} holds {len(file.entries)} tensors, but its configuration claims {claimed} layers")
  if claimed > _MAX_DEPTH:
    raise InteropError(f"{file.path}: its configuration claims {claimed} layers; more than {_MAX_DEPTH} are refused")


def _shards(folder: Path) -> Shards:
  index = read_json(folder / INDEX)
  names = sorted({str(name) for name in index.object("weight_map").values.values()})
  if not names:
    raise InteropError(f"{folder / INDEX}: weight_map names no files")
  return Shards(folder, [SafetensorsFile(inside(folder, name, f"{folder / INDEX}: weight_map")) for name in names])


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
  if not (folder / pure).is_file():
    raise InteropError(f"{where} names the file {name!r}, which is not in {folder}")
  return folder / pure


def _refused(path: Path) -> InteropError:
  return InteropError(
    f"{path} is refused: a {path.suffix} file is a pickle, which runs code when it is opened. If you trust it and "
    'have PyTorch, convert it once: python -c "import torch; from safetensors.torch import save_file; '
    f"w = torch.load('{path.name}', map_location='cpu', weights_only=True); w = w.get('state_dict', w); "
    "save_file({k: v.clone().contiguous() for k, v in w.items()}, 'model.safetensors')\""
  )
