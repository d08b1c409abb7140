"""Notes on the preprocessing that a format does not hold: what was written is read back and compared."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.transforms import EvalImage
from mmjax.errors import UserError
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.formats import Format
from mmjax.interop.preprocess import Preprocess, default_preprocess, to_open_clip, to_transformers, version_of
from mmjax.interop.processor import from_open_clip, from_transformers
from mmjax.interop.run_image import ImageTransform, nearest_preprocess

_COLORS = {
  "drop": "drops the transparency",
  "white": "puts transparent images on white",
  "late": "resizes images in their own mode, and converts them to RGB after the crop",
  "none": "refuses images that are not RGB",
}
_TEXTS = ("a cat", "ｆｕｌｌ ｗｉｄｔｈ", "a &amp;amp; b", "ΟΔΥΣΣΕΥΣ", "bell\x07 x", "cafÃ©", "tab\ta", "")
"""Texts that libraries clean up differently."""


def image_notes(transform: ImageTransform | None, form: Format, folder: Path) -> list[str]:
  """List what a format cannot hold of a transform of images, and the remedies.

  Args:
    transform: the transform. None: the model takes no images.
    form: the format, which is not mmjax's own.
    folder: folder that was written.
  """
  if transform is None:
    return []
  p, found = nearest_preprocess(transform), []
  if form.alone:
    found.append(
      f"{_reader(form)} has no file for preprocessing: images of {p.size} pixels, mean {p.mean}, std {p.std} "
      "(data.mean, data.std)."
    )
  if isinstance(transform, EvalImage):
    found += [
      "Transparent images are put on white in mmjax. Other libraries drop the transparency (transformers 5 puts them "
      "on white too): put them on white first.",
      "mmjax crops an image to its middle square before resizing (bilinear). Other libraries crop after resizing "
      "(do_center_crop; resize_mode shortest), so the pixels of images that are not square differ a little.",
    ]
    if not form.alone:
      found.append(
        f"To train and evaluate with the preprocessing that is written here, set --data.preprocess {folder} (and "
        "--data.no-trim): then there is no difference."
      )
  else:
    found += lost(p, form)
  if getattr(transform, "trim", False):
    found.append(
      "mmjax cut off empty margins (data.trim). Other libraries do not: cut them off first, or train with "
      "--data.no-trim."
    )
  return found


def lost(p: Preprocess, form: Format) -> list[str]:
  """List the fields of a preprocessing that are others when it is written in a format and read back."""
  back, found = _read_back(p, form), []
  if back.colors != p.colors:
    found.append(
      f"Images that are not opaque RGB get other pixels: the model's preprocessing {_COLORS[p.colors]}, and "
      f"{_reader(form)} {_COLORS[back.colors]}. Convert such images to opaque RGB first."
    )
  if back.odd != p.odd and p.crop:
    found.append(
      f"{_reader(form)} crops an image one pixel aside where the margins cannot be equal. Crop or resize images to a "
      "square first."
    )
  names = ("resize", "interpolation", "mean", "std", "fill", "resize_to", "crop", "scale")
  for name in names:
    ours, theirs = getattr(p, name), getattr(back, name)
    patches = name == "resize" and (ours, theirs) == ("patches", "squash")  # the same for every image that is taken
    padding = name == "fill" and p.resize != "longest" and not p.crop
    if not (patches or padding) and not _alike(ours, theirs):
      found.append(
        f"{_reader(form)} does not hold {name} of the preprocessing: it is {ours}, and {theirs} when the folder is "
        'read. Prepare images by yourself, or use the format "mmjax", which holds every preprocessing.'
      )
  return found


def text_notes(ours: Callable[[Sequence[str]], Any], theirs: Callable[[], Callable[[Sequence[str]], Any]]) -> list[str]:
  """Compare two tokenizers on texts that libraries clean up differently.

  Args:
    ours: tokenizer of the source.
    theirs: function that loads the tokenizer of the folder that was written.
  """
  try:
    new = theirs()
  except InteropError as error:
    return [f"The folder has no tokenizer that can be read: {error}."]
  try:
    before, after = np.asarray(ours(_TEXTS)), np.asarray(new(_TEXTS))
  except UserError as error:  # the clean-up needs a package
    return [f"Texts may get other ids; they could not be compared: {error}."]
  if before.shape != after.shape:
    return [f"Texts have {before.shape[1]} tokens in the source and {after.shape[1]} in the folder."]
  other = [text for text, a, b in zip(_TEXTS, _unpadded(before), _unpadded(after), strict=True) if not a & b]
  if not other:
    return []
  return [
    f"{len(other)} of {len(_TEXTS)} texts get other ids, such as {', '.join(map(repr, other[:3]))}. Clean texts up "
    "first, as the source's library does."
  ]


def _unpadded(ids: np.ndarray) -> list[set[tuple[int, ...]]]:
  """Ids without padding. Some libraries pad with the token that ends a text, so that it may be missing."""
  rows = [row.tolist() for row in ids]
  pad = rows[-1][-1]  # of the empty text
  found = []
  for row in rows:
    while row and row[-1] == pad:
      row.pop()
    found.append({tuple(row), (*row, pad)})
  return found


def _reader(form: Format) -> str:
  return form.library if form.library != "mmjax" else form.name


def _read_back(p: Preprocess, form: Format) -> Preprocess:
  """The preprocessing as it is read from what `save` writes in a format."""
  if form.alone:
    return default_preprocess(p.size, form.architecture(None).name)
  if form.name == "open_clip":
    return from_open_clip(Fields(to_open_clip(p), form.name), p.size)
  fields = Fields(to_transformers(p, "CLIPImageProcessor"), form.name)
  return from_transformers(fields, p.size, "CLIPModel", version_of(p))


def _alike(ours: Any, theirs: Any) -> bool:
  if isinstance(ours, float | tuple) and isinstance(theirs, float | tuple):
    return bool(np.allclose(ours, theirs, rtol=1e-6))
  return bool(ours == theirs)
