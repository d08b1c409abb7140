"""Files of sentence-transformers beside a BERT checkpoint. They set the pooling of token vectors to one vector."""

import dataclasses
import json
from pathlib import Path

from mmjax.encoders import TextConfig
from mmjax.interop import without_effect
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import read_json

_SETTINGS = "config_sentence_transformers.json"
_MODULES, _POOLING = "modules.json", "1_Pooling"
_OTHERS = ("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")


def read_pooling(config: TextConfig, folder: Path) -> TextConfig:
  """Set the pooling of a configuration from the files in a folder.

  Returns: the new configuration, or `config` if the folder has no such files.
  Raises: InteropError: mmjax does not support the pooling.
  """
  if not (folder / _MODULES).is_file():
    return config
  _check_prompt(folder)
  path = _pooling_file(folder)
  pooling = read_json(path)
  for name in (*_OTHERS, "pooling_mode_lasttoken"):
    pooling.only(name, False, False)
  mean = pooling.flag("pooling_mode_mean_tokens", False)
  if mean == pooling.flag("pooling_mode_cls_token", False):
    raise InteropError(f"{path}: exactly one of pooling_mode_mean_tokens and pooling_mode_cls_token must be true")
  pooling.only("word_embedding_dimension", config.width, config.width)
  pooling.finish(without_effect.POOLING)
  return dataclasses.replace(config, pool="mean" if mean else "first", tanh_pool=False)


def _check_prompt(folder: Path) -> None:
  """Raise InteropError if sentence-transformers puts a prompt before every text, which mmjax does not."""
  path = folder / _SETTINGS
  if not path.is_file():
    return
  fields = read_json(path)
  name = fields.get("default_prompt_name")
  prompt = None if name is None else fields.object("prompts").values.get(name)
  if name is not None and prompt != "":
    raise InteropError(
      f"{path}: default_prompt_name is {name!r}: sentence-transformers puts the prompt {prompt!r} before every text, "
      "which mmjax does not. Put it before your texts yourself, and set default_prompt_name to null in the file"
    )


def _pooling_file(folder: Path) -> Path:
  """File with the settings of the pooling. Raises InteropError for modules that mmjax has not."""
  path = folder / _MODULES
  try:
    modules = json.loads(path.read_text(encoding="utf-8"))
    kinds = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in modules]
  except (OSError, ValueError, TypeError, KeyError) as error:
    raise InteropError(f"{path} is not a list of modules with type and path: {error!r}") from error
  names = [name for name, _ in kinds]
  if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or kinds[0][1]:
    raise InteropError(
      f"{path} lists the modules {', '.join(names)}; mmjax reads Transformer (in the folder itself), Pooling and "
      "Normalize. Its vectors are not unit-norm: divide by their norm where the file lists Normalize"
    )
  return folder / kinds[1][1] / "config.json"


def write_pooling(config: TextConfig, folder: Path) -> None:
  """Write the files for a model that pools by the mean over its tokens."""
  (folder / _POOLING).mkdir(exist_ok=True)
  kinds = (("0", "", "Transformer"), ("1", _POOLING, "Pooling"))
  modules = [
    {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
    for name, path, kind in kinds
  ]
  pooling = {
    "word_embedding_dimension": config.width,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
  }
  pooling |= dict.fromkeys(_OTHERS, False)
  (folder / _MODULES).write_text(json.dumps(modules, indent=2), encoding="utf-8")
  (folder / _POOLING / "config.json").write_text(json.dumps(pooling, indent=2), encoding="utf-8")
  length = json.dumps({"max_seq_length": config.max_length, "do_lower_case": False})
  (folder / "sentence_bert_config.json").write_text(length, encoding="utf-8")
