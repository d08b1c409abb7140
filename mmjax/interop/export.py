"""Export of a run's model in an external format: weights, preprocessing, tokenizer and model card."""

import json
from pathlib import Path

from mmjax.encoders import ViTConfig
from mmjax.interop.card import model_card
from mmjax.interop.formats import Format, find_format
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained import save
from mmjax.interop.tokenizer import export_tokenizer
from mmjax.models.config import image_size
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
  data, side = run.experiment.data, image_size(run.experiment.model)
  preprocess = Preprocess(side, "shortest", "bilinear", data.mean, data.std) if side else None
  params = {name: part for name, part in run.params.items() if name != "balance"}  # "balance": weights of loss terms
  save(run.model, params, folder, format, preprocess=preprocess)
  if run.tokenizer is not None:
    export_tokenizer(run.tokenizer, folder)
  if form.name_tokenizer:
    form.name_tokenizer(folder, {"hf_tokenizer_name": str(folder), "tokenizer_kwargs": {"clean": "whitespace"}})
  config = json.loads((run.workdir / CONFIG).read_text(encoding="utf-8"))
  results = run.workdir / "results.json"
  found = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
  card = model_card(run.workdir.resolve().name, form, str(folder), config, found, _notes(run, form))
  (folder / "README.md").write_text(card, encoding="utf-8")
  return folder


def _notes(run: Run, form: Format) -> list[str]:
  """List the differences between the preprocessing of mmjax and of the other library."""
  if not image_size(run.experiment.model):
    return []
  notes = [
    "mmjax evaluates transparent images on white. Other libraries drop the transparency: put them on white first."
  ]
  notes.append("mmjax crops an image to its middle square before resizing. Other libraries crop after resizing.")
  if run.experiment.data.trim:
    notes.append("mmjax cut off empty margins (data.trim). Other libraries do not: cut them off first.")
  notes.extend(form.notes)
  image = getattr(run.experiment.model, "image", None)
  if isinstance(image, ViTConfig) and image.patch_dropout:
    notes.append("Training dropped patches at random. The exported model does not.")
  return notes
