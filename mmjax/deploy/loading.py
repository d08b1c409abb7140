"""Loading of an export: StableHLO by JAX, ONNX by ONNX Runtime. No code of the model is imported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.deploy.formats import DeployError
from mmjax.deploy.standalone import PREPROCESS, TOKENIZER, Exported, ExportError


class Loaded(Exported):
  """An exported model, with the image transform and the tokenizer of mmjax.

  They take every image and text that the run takes, and raise the same errors (DataError).
  """

  error = DeployError

  def _make_transform(self) -> Callable[[Any], np.ndarray]:
    from mmjax.interop.run_image import read_image

    size = next(one["shape"][1] for part in self.parts.values() for one in part["inputs"] if one["prepare"] == "image")
    found = read_image(self.folder / PREPROCESS, size)
    if found is None:
      raise DeployError(f"{self.folder} has no {PREPROCESS}: pass preprocessed float32 arrays")
    return found

  def _make_tokenizer(self) -> Any:
    folder = self.folder / TOKENIZER
    if (folder / "checkpoint_tokenizer.json").exists():
      from mmjax.interop.run_tokenizer import load_saved

      return load_saved(folder)
    from mmjax.data.text.tokenizer import Tokenizer

    return Tokenizer.load(folder)


def load(folder: str | Path) -> Loaded:
  """Load an export that `mmjax.deploy.export` wrote. Every file is compared with its checksum.

  Args:
    folder: folder of the export.
  Returns: the model. Its methods are those of `mmjax.Run`.
  Raises: DeployError: a file is missing or was changed, or its runtime is not installed.

  Example:
    >>> from mmjax.deploy import load
    >>> load("/nowhere")
    Traceback (most recent call last):
    mmjax.deploy.formats.DeployError: /nowhere is not an export: it has no manifest.json
  """
  try:
    return Loaded(Path(folder).expanduser())
  except ExportError as error:
    raise DeployError(str(error)) from error
