"""A run's model for other people: weights, preprocessing, tokenizer and a card, in the format they use."""

import json
from pathlib import Path

from mmjax.encoders import ViTConfig
from mmjax.interop.card import model_card
from mmjax.interop.convert import name_tokenizer
from mmjax.interop.formats import Format
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained import save
from mmjax.interop.tokenizer import export_tokenizer
from mmjax.models.config import image_size
from mmjax.run import CONFIG, Run


def export_run(run: Run, format: Format, folder: Path | None = None) -> Path:
  """Writes a run's model in another project's format, into WORKDIR/export/FORMAT unless a folder is given.

  Raises: InteropError where the format cannot hold the model; every field that does not fit is named.
  """
  folder = run.workdir / "export" / format if folder is None else folder
  data, side = run.experiment.data, image_size(run.experiment.model)
  preprocess = Preprocess(side, "shortest", "bilinear", data.mean, data.std) if side else None
  params = {name: part for name, part in run.params.items() if name != "balance"}  # which weighed the losses
  save(run.model, params, folder, format, preprocess=preprocess)
  if run.tokenizer is not None:
    export_tokenizer(run.tokenizer, folder)
  if format == "open_clip":
    name_tokenizer(folder, {"hf_tokenizer_name": str(folder), "tokenizer_kwargs": {"clean": "whitespace"}})
  config = json.loads((run.workdir / CONFIG).read_text(encoding="utf-8"))
  results = run.workdir / "results.json"
  found = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
  card = model_card(run.workdir.resolve().name, format, str(folder), config, found, _notes(run, format))
  (folder / "README.md").write_text(card, encoding="utf-8")
  return folder


def _notes(run: Run, format: Format) -> list[str]:
  """What the other side does differently from training."""
  if not image_size(run.experiment.model):
    return []
  notes = [
    "Transparent pictures were put on white in training; other projects drop the transparency: flatten them first."
  ]
  notes.append("Of pictures that are not square, training cuts out the middle before it resizes; others do after it.")
  if run.experiment.data.trim:
    notes.append("Margins were cut off in training (data.trim); no other project does that: cut them off first.")
  if format == "open_clip":
    notes.append("open_clip repairs texts with ftfy before tokenizing; training did not.")
  image = getattr(run.experiment.model, "image", None)
  if isinstance(image, ViTConfig) and image.patch_dropout:
    notes.append("Patches were dropped in training; none are here.")
  return notes
