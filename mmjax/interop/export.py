"""Export of a run's model in an external format: weights, preprocessing, tokenizer and model card."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.card import model_card
from mmjax.interop.convert import name_tokenizer
from mmjax.interop.formats import Format, find_format
from mmjax.interop.kept import image_notes
from mmjax.interop.pretrained import save
from mmjax.interop.pretrained_tokenizer import copy_tokenizer, export_tokenizer
from mmjax.interop.run_tokenizer import CheckpointTokenizer
from mmjax.interop.speech_export import named_begin, write_speech
from mmjax.models.blip2_captioner import Blip2CaptionerConfig
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.ensemble import EnsembleConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.models.whisper import WhisperConfig
from mmjax.run import CONFIG, Run


def export_run(run: Run, format: str, folder: Path | None = None) -> Path:
  """Write a run's model in an external format.

  Args:
    run: the run.
    format: name of the format to write (see mmjax.interop.FORMATS).
    folder: folder to write into; WORKDIR/export/FORMAT if None.
  Returns: the folder.
  Raises: InteropError: the format cannot hold the model. The message names every field that does not fit.
  """
  form = find_format(format)
  folder = run.workdir / "export" / format if folder is None else folder
  params = {name: part for name, part in run.params.items() if name not in ("balance", "terms")}  # of loss terms
  model = _named(run)
  save(model, params, folder, format, preprocess=run.transform)
  if isinstance(model.config, WhisperConfig) and form.name == "transformers":
    write_speech(model.config, run, folder)
  _write_tokenizer(run, form, folder)
  config = json.loads((run.workdir / CONFIG).read_text(encoding="utf-8"))
  results = run.workdir / "results.json"
  found = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
  card = model_card(run.workdir.resolve().name, form, str(folder), config, found, notes(run, form, folder))
  (folder / "README.md").write_text(card, encoding="utf-8")
  return folder


def _named(run: Run) -> Any:
  """The model, with the names of its classes if it is a classifier, and the token with which it begins texts."""
  config = run.experiment.model
  if isinstance(config, WhisperConfig | Seq2SeqConfig | Blip2CaptionerConfig):
    return named_begin(config, run).build()
  named = _with_classes(config, run)
  return run.model if named is config else named.build()


def _with_classes(config: Any, run: Run) -> Any:
  if isinstance(config, EnsembleConfig):
    models = tuple(_with_classes(model, run) for model in config.models)
    same = all(new is old for new, old in zip(models, config.models, strict=True))
    return config if same else dataclasses.replace(config, models=models)
  return dataclasses.replace(config, classes=run.classes) if isinstance(config, ClassifierConfig) else config


def _write_tokenizer(run: Run, form: Format, folder: Path) -> None:
  """Write the files of the tokenizer, and the fields that name it."""
  tokenizer = run.tokenizer
  if isinstance(tokenizer, CheckpointTokenizer):
    copy_tokenizer(tokenizer.folder, folder)
    name_tokenizer(form, folder, tokenizer.open_clip, run.experiment.model, tokenizer.published)
    return
  if tokenizer is not None:
    export_tokenizer(tokenizer, folder)
  if form.name_tokenizer and form.name != "mmjax":
    form.name_tokenizer(folder, {"hf_tokenizer_name": str(folder), "tokenizer_kwargs": {"clean": "whitespace"}})


def notes(run: Run, form: Format, folder: Path) -> list[str]:
  """List what a format cannot hold of a run: the differences between mmjax and the other library, and the remedies."""
  found = [] if form.name == "mmjax" else [*image_notes(run.transform, form, folder), *form.notes]
  image = getattr(run.experiment.model, "image", None)
  if isinstance(image, ViTConfig) and image.patch_dropout:
    found.append("Training dropped patches at random. The exported model does not.")
  return found
