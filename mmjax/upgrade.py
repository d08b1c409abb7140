"""Conversion of configurations that older versions of mmjax wrote."""

from typing import Any

from mmjax.configs import to_json
from mmjax.evaluate.results import MEAN_RECALL
from mmjax.evaluators.config import EvaluationConfig
from mmjax.kinds import TAG


def _same(*names: str) -> dict[str, str]:
  return {name: name for name in names}


# The settings of each source, which stood side by side in `data` for all sources at once: {source: {old name: new}}.
_SOURCES: dict[str, dict[str, str]] = {
  "emoji": _same("vendors", "languages", "skin_tones", "groups", "limit"),
  "tfds": _same("name", "image_key", "caption_key", "train_split", "validation_split"),
  "folder": _same("path", "captions_file", "image_key", "caption_key"),
  "shards": {
    "shards": "patterns",
    "shard_weights": "weights",
    "shard_repeats": "repeats",
    "validation_shards": "validation",
    "caption_key": "caption_key",
  },
  "scenes": {},
  "texts": _same("path"),
  "easy_vqa": {},
  "coco": _same("path"),
  "vqav2": _same("path"),
  "flickr30k": _same("path"),
}
_NESTED = ("scenes", "texts")
"""Sources whose settings stood in an object of their name."""


def upgraded(fields: Any) -> Any:
  """Convert the JSON of an experiment to the form of this version. Fields that need no conversion are unchanged."""
  if not isinstance(fields, dict):
    return fields
  new = dict(fields)
  if isinstance(new.get("data"), dict):
    new["data"] = _data(new["data"])
  if isinstance(new.get("model"), dict):
    new["model"] = upgraded_model(_tagged(new["model"], "system", "TwoTowerConfig"))
  if isinstance(new.get("objectives"), list):
    new["objectives"] = [_term(term) for term in new["objectives"]]
  if isinstance(new.get("evaluation"), dict) and "evaluators" not in new["evaluation"]:
    new["evaluation"] = _evaluation(new["evaluation"])
  return new


def upgraded_model(fields: dict[str, Any]) -> dict[str, Any]:
  """Convert the JSON of a model: add the classes of the towers to a two-tower model, and the norm to a ResNet."""
  fields = _with_norm(fields)
  if fields.get(TAG) != "TwoTowerConfig" or not isinstance(fields.get("image"), dict):
    return fields
  image = fields["image"]
  kind = "ResNetConfig" if "layers" in image else "ViTConfig"
  return fields | {
    name: {TAG: default, **tower}
    for name, default in (("image", kind), ("text", "TextConfig"))
    if isinstance(tower := fields.get(name), dict)
  }


def _with_norm(fields: dict[str, Any]) -> dict[str, Any]:
  """A model, or a tower, in which every ResNet names its norm. Before it could be chosen it was frozen."""
  new = {name: _with_norm(value) if isinstance(value, dict) else value for name, value in fields.items()}
  return {"norm": "frozen", **new} if {"layers", "output_dim"} <= new.keys() else new


def _data(fields: dict[str, Any]) -> dict[str, Any]:
  """The JSON of the data: the settings of the source under `source`, those of other sources left out."""
  source = fields.get("source", "emoji")
  if not isinstance(source, str) or source not in _SOURCES:
    return fields
  settings = {new: fields[old] for old, new in _SOURCES[source].items() if old in fields}
  inner = fields.get(source)
  if isinstance(inner, dict) and source in _NESTED:
    settings |= inner
  old = {name for names in _SOURCES.values() for name in names}.union(_NESTED)
  rest = {name: value for name, value in fields.items() if name not in old}
  return rest | {"source": {TAG: source, **settings}}


_MOVED = {
  "templates": "emoji",
  "min_class_size": "emoji",
  "rerank": "matching",
  "beams": "captions",
  "java_metrics": "captions",
  "masked_words": "hidden_words",
  "attention_layer": "attention",
}
"""The evaluator that has what was a setting of all evaluation."""


def _evaluation(fields: dict[str, Any]) -> dict[str, Any]:
  """Evaluation as before evaluators were objects: all of them, with the settings that it had."""
  evaluators = to_json(EvaluationConfig())["evaluators"]
  for setting, name in _MOVED.items():
    if setting in fields:
      evaluators[name][setting] = fields[setting]
  kept = {name: value for name, value in fields.items() if name not in _MOVED}
  if kept.get("best_metric") == MEAN_RECALL:  # the default, also of runs that have no recall
    del kept["best_metric"]
  return {**kept, "evaluators": evaluators}


def _term(fields: Any) -> Any:
  if not isinstance(fields, dict):
    return fields
  new = _tagged(fields, "term", "Contrastive")
  if isinstance(new.get("loss"), str):  # losses had no settings: they were stored by their names on the command line
    new["loss"] = {TAG: new["loss"]}
  return new


def _tagged(fields: dict[str, Any], old: str, default: str) -> dict[str, Any]:
  """Store the class under the key of this version. Older versions omitted the default class."""
  if TAG in fields:
    return fields
  return {TAG: fields.get(old, default), **{name: value for name, value in fields.items() if name != old}}
