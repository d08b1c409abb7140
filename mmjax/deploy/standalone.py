"""Runs an export of mmjax, without mmjax: `from run import load; model = load(".")`.

This file is copied beside every export as run.py. It needs numpy, pillow and tokenizers, and onnxruntime for ONNX, or
jax and flatbuffers for StableHLO. `python run.py IMAGE TEXT TEXT ...` prints the similarity of an image and texts.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageOps

BATCH = 64
"""Largest batch."""
MANIFEST, PREPROCESS, TOKENIZER, WEIGHTS = "manifest.json", "preprocess.json", "tokenizer", "weights.npz"


class ExportError(ValueError):
  """A folder that is not an export, or was changed; or a request that the model cannot answer."""


class InputError(ValueError):
  """An image that cannot be used."""


class Exported:
  """An exported model. The methods are those of a run of mmjax: numpy arrays in and out.

  Attributes:
    folder: folder of the export.
    manifest: content of manifest.json.
  """

  error: type[ValueError] = ExportError
  """Class of the errors about what the model is asked for."""

  def __init__(self, folder: str | Path):
    self.folder = Path(folder)
    self.manifest = read_manifest(self.folder)
    backend = {"onnx": _onnx, "stablehlo": _stablehlo}[self.manifest["format"]]
    self._programs = backend(self.folder, self.manifest)
    self._transform: Callable[[Any], np.ndarray] | None = None

  @property
  def parts(self) -> dict[str, Any]:
    """Parts of the model, by name: the towers that embed, and classify, predict or answer."""
    return self.manifest["parts"]

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes of a classifier, in the order of its scores."""
    self._part("classify")
    return tuple(self.manifest["classes"])

  @property
  def logit_scale(self) -> float:
    """Factor of the cosines in the model's softmax or sigmoid. 1 for a model without one."""
    return float(self.manifest.get("logit_scale", 1.0))

  def compute(self, part: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute a part of the model for prepared arrays.

    Args:
      part: name of the part.
      arrays: arrays by name, with a leading batch axis of any length. Shapes and dtypes are in the manifest.
    Returns: float32 [batch, ...], or int32 for the token ids of texts.
    Raises: ExportError: there is no such part, or an array is missing or has another shape.
    """
    spec = self._part(part)
    rows = self._checked(part, spec, arrays)
    total, found = len(next(iter(rows.values()))), []
    for start in range(0, total, BATCH):
      found.append(self._programs[part]({name: array[start : start + BATCH] for name, array in rows.items()}))
    return np.concatenate(found) if found else np.zeros((0, *spec["output"]["shape"][1:]), spec["output"]["dtype"])

  def encode_image(self, images: Any) -> np.ndarray:
    """Compute unit-norm embeddings of images: paths, encoded bytes, Pillow images, uint8 arrays, or one preprocessed
    float32 array [n, size, size, 3].
    """
    return self.encode("image", images)

  def encode_text(self, strings: Sequence[str]) -> np.ndarray:
    """Compute unit-norm embeddings of texts."""
    if isinstance(strings, str):
      raise TypeError("encode_text takes a list of strings; wrap the one string in a list")
    return self.encode("text", strings)

  def encode(self, column: str, items: Any) -> np.ndarray:
    """Compute unit-norm embeddings of the items of one column. Columns other than images and texts take arrays."""
    return self.compute(column, self._rows(column, items))

  def classify(self, items: Any) -> np.ndarray:
    """Compute the probabilities of the classes.

    Args:
      items: items of the one input; or for several inputs, items by name.
    """
    return self.compute("classify", self._rows("classify", items))

  def predict(self, items: Any) -> np.ndarray:
    """Predict a number for each item, in float64 and in the unit of the data. Arguments: as for `classify`."""
    number = self.compute("predict", self._rows("predict", items)).astype(np.float64)
    return number * self.manifest["number"]["std"] + self.manifest["number"]["mean"]

  def answer(self, images: Any, questions: Sequence[str]) -> list[str]:
    """Answer a question about each image, with one of the answers of the training data or in the model's own words."""
    if "answer" not in self.parts and "write_answer" in self.parts:
      return self._texts(self.compute("write_answer", self._rows("write_answer", {"image": images, "text": questions})))
    scores = self.compute("answer", self._rows("answer", {"image": images, "text": questions}))
    return [self.manifest["answers"][place] for place in scores.argmax(axis=1)]

  def caption(self, images: Any) -> list[str]:
    """Write a caption for each image, with the likeliest word each time."""
    return self._texts(self.compute("caption", self._rows("caption", images)))

  def preprocess(self, image: Any) -> np.ndarray:
    """Resize and normalise an image as in evaluation, to float32 [size, size, 3]."""
    if self._transform is None:
      self._transform = self._make_transform()
    return self._transform(image)

  def tokenizer(self, strings: Sequence[str]) -> np.ndarray:
    """Make the token ids of texts, int32 [n, length]."""
    return self._words(strings)

  def _make_transform(self) -> Callable[[Any], np.ndarray]:
    return EvalImage(_json(self.folder / PREPROCESS))

  @functools.cached_property
  def _words(self) -> Any:
    return self._make_tokenizer()

  def _texts(self, ids: np.ndarray) -> list[str]:
    """Texts of rows of ids, up to the end token."""
    ends = [np.flatnonzero(row == self._words.eos_id) for row in ids]
    rows = [row[: end[0]] if len(end) else row for row, end in zip(ids, ends, strict=True)]
    return [self._words.decode(row).strip() for row in rows]

  def _make_tokenizer(self) -> Any:
    return Tokenizer(self.folder / TOKENIZER)

  def _part(self, name: str) -> dict[str, Any]:
    if name not in self.parts:
      raise self.error(f"the export in {self.folder} has no part {name!r}; it has {', '.join(self.parts)}")
    return self.parts[name]

  def _checked(self, part: str, spec: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that a part reads. Raises ExportError for a missing or wrong one."""
    names = [one["name"] for one in spec["inputs"]]
    if set(arrays) != set(names):
      raise self.error(f"{part} reads {', '.join(names)}, and it was given {', '.join(arrays) or 'nothing'}")
    if len({len(array) for array in arrays.values()}) != 1:
      raise self.error(f"{part} needs as many rows of each of {', '.join(names)}")
    for one in spec["inputs"]:
      array, shape = arrays[one["name"]], tuple(one["shape"][1:])
      if array.shape[1:] != shape or str(array.dtype) != one["dtype"]:
        raise self.error(
          f"{part} reads {one['name']} as {one['dtype']} [batch, {', '.join(map(str, shape))}], and it was given "
          f"{array.dtype} {list(array.shape)}"
        )
    return dict(arrays)

  def _rows(self, part: str, items: Any) -> dict[str, np.ndarray]:
    """Prepared arrays of items."""
    inputs = self._part(part)["inputs"]
    given = items if isinstance(items, Mapping) else {inputs[0]["name"]: items}
    return {one["name"]: self._prepared(one, given[one["name"]]) for one in inputs if one["name"] in given}

  def _prepared(self, one: Mapping[str, Any], items: Any) -> np.ndarray:
    if one["prepare"] == "text":
      return self.tokenizer(list(items))
    done = isinstance(items, np.ndarray) and str(items.dtype) == one["dtype"] and items.ndim == len(one["shape"])
    if one["prepare"] == "image" and not done:
      rows = [self.preprocess(item) for item in items]
      return np.stack(rows) if rows else np.zeros((0, *one["shape"][1:]), np.float32)
    return np.asarray(items)


def load(folder: str | Path) -> Exported:
  """Load an export.

  Args:
    folder: folder that holds manifest.json.
  Raises: ExportError: a file is missing or was changed, or its runtime is not installed.
  """
  return Exported(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
  """Read manifest.json and compare every file with its checksum.

  Raises: ExportError: the folder is no export, or a file is missing or was changed.
  """
  path = folder / MANIFEST
  try:
    manifest = json.loads(path.read_text(encoding="utf-8"))
    files, known = dict(manifest["files"]), manifest["format"] in ("onnx", "stablehlo") and manifest["version"] == 1
  except FileNotFoundError:
    raise ExportError(f"{folder} is not an export: it has no {MANIFEST}") from None
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ExportError(f"{path} cannot be read ({error!r}): export the run again") from error
  if not known:
    raise ExportError(f"{path} is of another version of mmjax: export the run again, or update mmjax")
  for name, digest in files.items():
    if not (folder / name).is_file():
      raise ExportError(f"{folder / name} is missing: export the run again")
    if checksum(folder / name) != digest:
      raise ExportError(f"{folder / name} was changed: its checksum is not that of {MANIFEST}. Export the run again")
  return manifest


def checksum(path: Path) -> str:
  """SHA-256 of a file, in hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


class Tokenizer:
  """Token ids of texts, `[begin] text eos pad pad ...`, of a tokenizer that mmjax trained or loaded.

  Args:
    folder: folder with tokenizer.json and tokenizer_config.json.
  """

  def __init__(self, folder: Path):
    import tokenizers

    if (folder / "checkpoint_tokenizer.json").exists() or not (folder / "tokenizer_config.json").is_file():
      raise ExportError(f"{folder} holds a tokenizer of another library: make the token ids with it, or use mmjax")
    config = _json(folder / "tokenizer_config.json")
    engine = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    engine.no_padding()
    engine.no_truncation()
    engine.encode_special_tokens = True
    first = config["cls_token"] or config["bos_token"]
    self._engine, self._length = engine, config["max_length"]
    self._begin = [] if first is None else [engine.token_to_id(first)]
    self.eos_id, self._pad = engine.token_to_id(config["eos_token"]), engine.token_to_id(config["pad_token"])
    names = [value for name, value in config.items() if name.endswith("_token") and value is not None]
    self._special = {engine.token_to_id(name) for name in names}
    self._longest = 4096 + 256 * max(config["max_length"], config["answer_length"])

  def __call__(self, strings: Sequence[str]) -> np.ndarray:
    """Make ids, int32 [n, length]."""
    ids = np.full((len(strings), self._length), self._pad, np.int32)
    short = [text[: self._longest] for text in strings]
    for row, found in zip(ids, self._engine.encode_batch(short, add_special_tokens=False), strict=True):
      words = [*self._begin, *found.ids[: self._length - 1 - len(self._begin)], self.eos_id]
      row[: len(words)] = words
    return ids

  def decode(self, ids: Sequence[int]) -> str:
    """Make the text of a row of ids, without special tokens."""
    return self._engine.decode([int(token) for token in ids if int(token) not in self._special])


class EvalImage:
  """Image transform of mmjax: crop the middle square, resize it, put it on white, normalise the colours.

  Images of 8 bits a channel are read. Others need a conversion first.

  Args:
    settings: content of preprocess.json.
  """

  def __init__(self, settings: Mapping[str, Any]):
    if settings.get("class") != "EvalImage":
      raise ExportError(
        f"run.py has no {settings.get('class')}: pass preprocessed float32 arrays, or use mmjax.deploy.load"
      )
    if settings.get("patches"):
      raise ExportError(
        "run.py makes no rows of patches (NaFlex): pass them as float32 arrays, or use mmjax.deploy.load"
      )
    self._settings, self._size = settings, settings["size"]
    mean, std = (np.asarray(settings["normalize"][name]) for name in ("mean", "std"))
    self._weights = np.empty((4, 3), np.float32)
    self._weights[:3] = np.eye(3) / (255 * std)
    self._weights[3] = 1 / (-255 * std)
    self._bias = ((1 - mean) / std).astype(np.float32)
    self._low, self._high = (-mean / std).astype(np.float32), ((1 - mean) / std).astype(np.float32)

  def __call__(self, image: Any) -> np.ndarray:
    """Transform a path, encoded bytes, a Pillow image or a uint8 array to float32 [size, size, 3]."""
    opened = self._opened(image)
    opened = _trimmed(opened) if self._settings["trim"] else opened
    # Premultiplied colours: resampling does not mix in colours of transparent pixels.
    opened = opened.convert("RGBA").convert("RGBa")
    side, (width, height) = min(opened.size), opened.size
    left, top = (width - side) / 2, (height - side) / 2
    box = (0, 0, width, height) if self._settings["squash"] else (left, top, left + side, top + side)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    pixels = np.asarray(opened.resize((self._size, self._size), filters[self._settings["interpolation"]], box=box))
    flat = pixels.reshape(-1, 4).astype(np.float32) @ self._weights + self._bias
    return np.clip(flat, self._low, self._high).reshape(self._size, self._size, 3)

  def _opened(self, image: Any) -> Image.Image:
    try:
      if isinstance(image, np.ndarray):
        opened = Image.fromarray(image)
      elif isinstance(image, Image.Image):
        opened = image
      else:
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)
      if opened.width * opened.height > self._settings["max_pixels"]:
        raise InputError(f"the image has {opened.width} x {opened.height} pixels, more than max_pixels")
      opened.load()
      opened = ImageOps.exif_transpose(opened)
    except InputError:
      raise
    except Exception as error:  # decoders raise many types of exceptions
      raise InputError(f"the image cannot be read ({error!r})") from error
    if opened.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV", "LAB"):
      raise InputError(f"an image of mode {opened.mode} is not read here: convert it to RGB of 8 bits")
    return opened.convert("RGBA" if opened.has_transparency_data else "RGB")


def _trimmed(image: Image.Image) -> Image.Image:
  """The image without empty margins, in the middle of a square."""
  if image.mode == "RGBA":
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
  else:
    box = ImageChops.difference(image, Image.new(image.mode, image.size, image.getpixel((0, 0)))).getbbox()
  if box is None or box == (0, 0, *image.size):
    return image
  left, top, right, bottom = box
  side = max(right - left, bottom - top)
  margin = (0, 0, 0, 0) if image.mode == "RGBA" else image.getpixel((0, 0))
  square = Image.new(image.mode, (side, side), margin)
  square.paste(image.crop(box), ((side - right + left) // 2, (side - bottom + top) // 2))
  return square


def _onnx(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Callable]:
  """Programs by part, run by ONNX Runtime on a CPU."""
  try:
    import onnxruntime
  except ImportError:
    raise ExportError("an ONNX export needs ONNX Runtime: pip install onnxruntime") from None

  def program(file: str) -> Callable:
    session = onnxruntime.InferenceSession(str(folder / file), providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(None, arrays)[0]

  return {name: program(spec["file"]) for name, spec in manifest["parts"].items()}


def _stablehlo(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Callable]:
  """Programs by part, compiled by XLA for the default device of JAX."""
  try:
    import flatbuffers  # noqa: F401  # JAX does not install what its serialization needs
    import jax
    import jax.export
  except ImportError:
    raise ExportError("a StableHLO export needs JAX and flatbuffers: pip install jax flatbuffers") from None
  weights = _weights(folder / WEIGHTS, manifest)

  def program(spec: Mapping[str, Any]) -> Callable:
    call = jax.jit(jax.export.deserialize(bytearray((folder / spec["file"]).read_bytes())).call)
    own = {name: weights[name] for name in spec["weights"]}
    return lambda arrays: _in_sizes(call, own, arrays)

  return {name: program(spec) for name, spec in manifest["parts"].items()}


def _in_sizes(call: Callable, weights: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
  """Call a program for a batch that is padded to a power of two, so that few sizes are compiled."""
  count = len(next(iter(arrays.values())))
  more = (1 << (count - 1).bit_length()) - count
  padded = {name: np.concatenate([array, np.repeat(array[-1:], more, axis=0)]) for name, array in arrays.items()}
  return np.asarray(call(weights, padded))[:count]


def _weights(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
  import jax.numpy as jnp

  with np.load(path, allow_pickle=False) as file:
    arrays = {name: file[name] for name in file.files}
  low = set(manifest["bfloat16"])  # numpy has no bfloat16: its bits are stored
  return {name: jnp.asarray(array.view(jnp.bfloat16) if name in low else array) for name, array in arrays.items()}


def _json(path: Path) -> Any:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise ExportError(f"the export has no {path.name}: pass prepared arrays") from None


def main(arguments: Sequence[str] | None = None) -> int:
  """Print the similarity of an image and texts.

  Args:
    arguments: the command line. None: sys.argv[1:].
  Returns: the exit status.
  """
  parser = argparse.ArgumentParser(description="Print the similarity of an image and texts.")
  parser.add_argument("image", type=Path)
  parser.add_argument("texts", nargs="+", metavar="text")
  parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="folder of the export")
  options = parser.parse_args(arguments)
  try:
    model = load(options.folder)
    scores = model.encode_text(options.texts) @ model.encode_image([options.image])[0]
  except (ExportError, InputError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  for text, score in sorted(zip(options.texts, scores, strict=True), key=lambda pair: -pair[1]):
    print(f"{score:7.4f}  {text}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
