"""Detection of a checkpoint: its files, its architecture and its mmjax configuration."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from mmjax.encoders import TextConfig
from mmjax.encoders.config import TowerConfig
from mmjax.interop import without_effect
from mmjax.interop.architecture import Architecture
from mmjax.interop.big_vision import BIG_VISION
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.finding import (
  CONFIG,
  OPEN_CLIP_CONFIG,
  OPEN_CLIP_WEIGHTS,
  check_weights,
  existing,
  inside,
  weights_in,
)
from mmjax.interop.generation_file import read_ids
from mmjax.interop.mapping import Table
from mmjax.interop.native import NATIVE
from mmjax.interop.npz_file import NpzFile
from mmjax.interop.open_clip import OPEN_CLIP, OPEN_CLIP_HF
from mmjax.interop.open_clip_coca import OPEN_CLIP_COCA
from mmjax.interop.openai import OPENAI, OWN
from mmjax.interop.resample import Resampling
from mmjax.interop.safetensors_file import SafetensorsFile
from mmjax.interop.sentence import read_pooling
from mmjax.interop.shapes import ModelConfig, depth, flat_shapes
from mmjax.interop.supported import part_of_whole, read_class
from mmjax.interop.tensors import Renamed, Shards, TensorFile, Unstacked
from mmjax.models.config import towers
from mmjax.models.gpt import GptConfig
from mmjax.models.seq2seq import Seq2SeqConfig

_MAX_DEPTH = 1_000
TEXT_CFG = "open_clip_text_cfg"
"""Entry of config.json in mmjax's own format."""
_PREFIX = r"^((module|_orig_mod)\.)+"  # of DistributedDataParallel, and of torch.compile


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


def open_source(path: str | Path, *, tower: str = "") -> Source:
  """Find the files of a checkpoint and read its configuration.

  Names and shapes of tensors are not checked here. `mapping.check` checks them.

  Args:
    path: path of the checkpoint.
    tower: tower to take from a whole model (see `one_tower`). Empty: the whole model.
  Raises:
    InteropError: there is no checkpoint, it is a pickle, a file is damaged, or the architecture or a setting is not
      supported.
  """
  path = existing(path)
  folder = path if path.is_dir() else path.parent
  format_, file, fields = _opened(weights_in(path) if path.is_dir() else path)
  if format_ == "transformers":
    fields, file = part_of_whole(fields, file, tower)
  architecture = _architecture(format_, fields, file)
  if architecture is BIG_VISION:
    file = Unstacked(file, "encoderblock/", "encoderblock_{}/")
  if architecture.renamed:
    file = Renamed(file, architecture.renamed)
  model_fields = fields.object("model_cfg") if format_ == "open_clip" else fields
  config = _config(architecture, model_fields, file)
  if format_ == "transformers":
    finish_model(fields, architecture.without_effect)
  if isinstance(config, TextConfig) and format_ == "transformers":
    config = read_pooling(config, folder)
  if isinstance(config, GptConfig | Seq2SeqConfig) and format_ == "transformers":
    config = read_ids(config, folder)
  _check_depth(config, file)
  try:
    table = Table(architecture.rules(config), flat_shapes(config))
  except (ValueError, TypeError, OverflowError) as error:
    raise InteropError(f"{fields.where}: the configuration is not valid: {error}") from error
  source = Source(path, folder, format_, architecture, file, fields, config, table)
  return one_tower(source, tower) if tower else source


def one_tower(source: Source, name: str) -> Source:
  """Take one tower of a model, as if it were a checkpoint of its own. A single tower is returned as it is.

  Args:
    source: the checkpoint.
    name: name of the tower: "image", "text".
  Raises: InteropError: the model has no such tower, or not as a part that works alone.
  """
  if isinstance(source.config, TowerConfig):
    return source
  found = towers(source.config)
  if name not in found:
    has = " and ".join(map(repr, found)) or "no towers"
    raise InteropError(f"{source.path} is {source.architecture.name}, which has {has}, not {name!r}")
  table = source.table.under(f"{name}/")
  tower = found[name]
  if not isinstance(tower, TowerConfig) or set(table.places) != set(flat_shapes(tower)):
    raise InteropError(
      f"{source.path}: the {name} tower of {source.architecture.name} has parts that a single tower does not have. "
      "Load the whole model"
    )
  others = tuple(f"^{re.escape(other)}$" for other in source.table.their_shapes if other not in table.their_shapes)
  ignored = (*source.architecture.ignored, *others)
  architecture = dataclasses.replace(source.architecture, ignored=ignored)
  return dataclasses.replace(source, config=tower, table=table, architecture=architecture)


def finish_model(fields: Fields, more: Mapping[str, str]) -> None:
  """Raise InteropError for a field of transformers' config.json that is neither read nor known to have no effect.

  Args:
    fields: config.json.
    more: further fields without an effect, and the reason of each.
  """
  for part in (fields, *fields.parts.values()):
    part.finish({**without_effect.MODEL, **more})


def tokenizer_fields(source: Source) -> Fields | None:
  """text_cfg of open_clip, which also describes the tokenizer. mmjax's own format keeps it. None for other sources."""
  if source.format in ("open_clip", "openai"):  # OpenAI's files have open_clip's own tokenizer
    return source.fields.object("model_cfg").object("text_cfg")
  return source.fields.object(TEXT_CFG) if source.format == "mmjax" and TEXT_CFG in source.fields else None


def open_tensors(path: str | Path) -> TensorFile:
  """Open the tensors of a checkpoint of any architecture. Raises InteropError if there are none."""
  path = existing(path)
  return _tensors(weights_in(path) if path.is_dir() else path)


def _opened(path: Path) -> tuple[str, TensorFile, Fields]:
  """Open a file with weights: (format, tensors, configuration beside it)."""
  file = _tensors(path)
  config, open_clip = path.parent / CONFIG, path.parent / OPEN_CLIP_CONFIG
  nothing = Fields({}, str(path))
  if path.suffix == ".npz":
    return "big_vision", file, nothing
  if "visual.conv1.weight" in file.entries or "text.token_embedding.weight" in file.entries:
    return _open_clip(path, file)
  if config.exists():
    return _with_config(file, read_json(config))
  if open_clip.exists():
    return "open_clip", file, read_json(open_clip)
  raise InteropError(
    f"{path} does not have the tensors of OpenAI's CLIP, and there is no {CONFIG} or {OPEN_CLIP_CONFIG} beside it: put "
    "the one that it was published with there"
  )


def _open_clip(path: Path, file: TensorFile) -> tuple[str, TensorFile, Fields]:
  """Open a file with the tensor names of OpenAI's CLIP, which open_clip also has."""
  beside = path.parent / OPEN_CLIP_CONFIG
  if beside.exists():
    return "open_clip", file, read_json(beside)
  if path.name in OPEN_CLIP_WEIGHTS or "text_projection" not in file.entries:
    raise InteropError(
      f"{path} has the tensors of open_clip, which do not tell its activation and its heads: put the "
      f"{OPEN_CLIP_CONFIG} that it was published with beside it"
    )
  if not all(name in file.entries for name in OWN):
    raise InteropError(
      f"{path} has the names of OpenAI's CLIP, but not its buffers ({', '.join(OWN)}). It may be of open_clip, with "
      f"another activation: put the {OPEN_CLIP_CONFIG} that it was published with beside it. If it is OpenAI's, "
      "convert the original .pt again with all of its tensors"
    )
  return "openai", file, Fields({}, str(path))


def _tensors(path: Path) -> TensorFile:
  """Open the tensors of a file, or of the files that an index names. A prefix that PyTorch adds is removed."""
  if path.name.endswith(".json") and ".safetensors.index." in path.name:
    file: TensorFile = _shards(path)
  else:
    check_weights(path)
    file = NpzFile(path) if path.suffix == ".npz" else SafetensorsFile(path)
  wrapped = bool(file.entries) and all(re.match(_PREFIX, name) for name in file.entries)
  return Renamed(file, ((_PREFIX, ""),)) if wrapped else file


def _with_config(file: TensorFile, fields: Fields) -> tuple[str, TensorFile, Fields]:
  return ("mmjax" if "mmjax_model" in fields else "transformers"), file, fields


def _architecture(format_: str, fields: Fields, file: TensorFile) -> Architecture:
  match format_:
    case "open_clip":
      model = fields.object("model_cfg")
      if "multimodal_cfg" in model:
        return OPEN_CLIP_COCA
      return OPEN_CLIP_HF if "hf_model_name" in model.object("text_cfg") else OPEN_CLIP
    case "openai":
      return OPENAI
    case "big_vision":
      return BIG_VISION
    case "mmjax":
      return NATIVE
  return read_class(fields, file.entries)


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


def _shards(index: Path) -> Shards:
  """Open the files that an index names."""
  names = sorted({str(name) for name in read_json(index).object("weight_map").values.values()})
  if not names:
    raise InteropError(f"{index}: weight_map names no files")
  paths = [inside(index.parent, name, f"{index}: weight_map") for name in names]
  for path in paths:
    check_weights(path)
  return Shards(index.parent, [SafetensorsFile(path) for path in paths])
