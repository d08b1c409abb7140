"""Class Run: a trained model with its transforms and tokenizer. Function load_run reads it from a workdir."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float, Int, UInt8

from mmjax.data.columns.base import Evaluating
from mmjax.data.columns.fitting import of_stream
from mmjax.data.features import run_columns
from mmjax.data.lazy_rows import LazyRows
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import eval_transform
from mmjax.errors import UserError
from mmjax.experiment import Experiment
from mmjax.models.config import image_size
from mmjax.models.joined import PRESENT
from mmjax.models.protocols import Classifies, Predicts
from mmjax.nn.norm import normalize
from mmjax.objectives.terms.regress import Regress
from mmjax.parallel.mesh import batch_sharding, batch_shards, put_rows, replicated

CONFIG, CHECKPOINTS, TOKENIZER, COLUMNS = "config.json", "checkpoints", "tokenizer", "columns.json"
PREPROCESS = "preprocess.json"


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained model, its parameters, and the transforms and tokenizer of its training.

  Attributes:
    experiment: configuration of the run.
    workdir: folder of the run.
    model: the linen module.
    params: parameters of the model. If the run kept a moving average, these are the averages (see
      evaluation.average). Adapters are added to their kernels.
    tokenizer: converts strings to token ids as in training (padding, EOS, case and length). None for a run without
      text.
    mesh: devices that encode. Batches are split over its batch axes.
    step: number of optimiser steps of the parameters.
    fitted: values that columns learned from the training data, by column name.
    image: transform of images in evaluation. None: that of `experiment.data`.
    adapters: the adapters alone, by the paths of their kernels. None: the run has none.
  """

  experiment: Experiment
  workdir: Path
  model: nn.Module
  params: Any
  tokenizer: Tokenizer | None
  mesh: Mesh
  step: int
  fitted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  image: Any = None
  adapters: Any = None

  def by_stream(self) -> "dict[str, Run]":
    """One run per data stream, as if the stream were the only data. That of data.source has the name ""."""
    return {
      name: dataclasses.replace(self, experiment=each, fitted=of_stream(self.fitted, name))
      for name, each in self.experiment.by_stream().items()
    }

  def preprocess(self, image: Any) -> Float[np.ndarray, "..."]:
    """Resize and normalise an image as in evaluation. It is a path, encoded bytes, a PIL image or a uint8 array.

    With a column NativeImage, the result is a row of patches instead (mmjax.data.images.native).
    Raises: UserError: the run has no images.
    """
    self._check_images()
    return self.transform(image)

  def _check_images(self) -> None:
    if self.transform is None:
      names = ", ".join(name for each in self.by_stream().values() for name in run_columns(each.experiment.data))
      raise UserError(
        f"the run in {self.workdir} has no images; its columns are {names}: use run.encode(COLUMN, items)"
      )

  def encode_image(self, images: Sequence[Any] | Float[np.ndarray, "n *image"]) -> Float[np.ndarray, "n dim"]:
    """Compute unit-norm embeddings of images. They are inputs of `preprocess`, or one preprocessed float32 array.

    Raises: UserError: the run has no images.
    """
    self._check_images()
    if isinstance(images, np.ndarray) and images.dtype == np.float32 and images.ndim == len(self.transform.shape) + 1:
      return self._encode("encode_image", len(images), images.__getitem__)
    return self._encode("encode_image", len(images), functools.partial(self.shown, images))

  def encode_text(self, strings: Sequence[str]) -> Float[np.ndarray, "n dim"]:
    """Compute unit-norm embeddings of texts."""
    if isinstance(strings, str):
      raise TypeError("encode_text takes a list of strings; wrap the one string in a list")
    if self.tokenizer is None:
      raise UserError(f"the run in {self.workdir} has no text, and so no tokenizer")
    ids = self.tokenizer(list(strings))
    return self._encode("encode_text", len(ids), ids.__getitem__)

  def encode(self, column: str, items: Sequence[Any]) -> Float[np.ndarray, "n dim"]:
    """Compute unit-norm embeddings of items of one column.

    Args:
      column: name of the column, as in `data.columns`.
      items: images, strings, or other items that the column accepts.
    Raises: UserError: the run does not have this column.
    """
    runs = [(each, name) for each in self.by_stream().values() for name in run_columns(each.experiment.data)]
    run = next((each for each, name in runs if name == column), None)
    if run is None:
      known = ", ".join(name for _, name in runs)
      raise UserError(f"the run in {self.workdir} has no column {column!r}; it has {known}")
    rows = run.rows(column, items)
    return self._encode(_EncodeColumn(column), len(items), rows.__getitem__)

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes of a classifier, in the order of its scores. Raises UserError for another model."""
    run = self._asking(Classifies, "classifies: train one with --objectives classify")
    config: Any = run.experiment.model
    return tuple(run.fitted[config.label]["classes"]) if config.label in run.fitted else config.classes

  def classify(self, items: Sequence[Any] | Mapping[str, Sequence[Any]]) -> Float[np.ndarray, "n classes"]:
    """Compute the probabilities of the classes, in float32. Their names are in `classes`.

    Args:
      items: items of the one tower, such as images; or for several towers, items by the name of the tower. A model with
        modality_dropout or partial answers with some of the towers.
    Raises: UserError: the model is no classifier, or the items are not those of its towers.
    """
    run = self._asking(Classifies, "classifies: train one with --objectives classify")
    found = run._outputs(_classify, items)
    config: Any = run.experiment.model
    return found if len(found) else np.zeros((0, config.num_classes), np.float32)

  @property
  def number(self) -> dict[str, float]:
    """Mean and standard deviation ("mean" and "std") of a predictor's target in the training data.

    Raises UserError for another model.
    """
    run = self._asking(Predicts, "predicts a number: train one with --objectives regress")
    (target,) = {term.target for term in run.experiment.objectives if isinstance(term, Regress)}
    return {name: float(run.fitted[target][name]) for name in ("mean", "std")}

  def predict(self, items: Sequence[Any] | Mapping[str, Sequence[Any]]) -> Float[np.ndarray, " n"]:
    """Predict a number for each item, in float64 and in the unit of the data.

    Args:
      items: as in `classify`. An item of a table is a mapping from its fields to their values.
    Raises: UserError: the model predicts no number, or the items are not those of its towers.
    """
    run = self._asking(Predicts, "predicts a number: train one with --objectives regress")
    scale = self.number
    return run._outputs(_predict, items).astype(np.float64) * scale["std"] + scale["mean"]

  def transcribe(self, sounds: Sequence[Any]) -> list[str]:
    """Write down what is said in sounds, decoded as in evaluation.

    Args:
      sounds: paths, encoded bytes, or (samples, rate).
    Returns: one text for each sound, in lower case where the tokenizer folds it.
    Raises:
      UserError: the run has no objective that writes down sounds.
      DataError: a sound cannot be read, or is longer than a row of its column.
    """
    from mmjax.evaluators.transcripts import transcripts  # it imports generation, which other runs do not need

    if isinstance(sounds, str | bytes):
      raise TypeError("transcribe takes a sequence of sounds; put the one sound in a list")
    return transcripts(self, sounds)

  def answer(
    self,
    prompts: Sequence[str],
    images: Sequence[Sequence[Any]],
    *,
    choices: Sequence[str] | None = None,
    max_new_tokens: int = 16,
    temperature: float = 0.0,
    beams: int = 1,
    seed: int = 0,
  ) -> list[str]:
    """Continue texts with images, of a Flamingo or a projector model.

    A prompt may hold demonstrations: texts with images that stand before the last one.

    Args:
      prompts: the texts, with `<image>` where an image is.
      images: the images of each prompt, in the order of `<image>`. They are inputs of `preprocess`.
      choices: texts of which the likeliest is the answer. None: the model writes one.
      max_new_tokens: maximal number of tokens of a written answer.
      temperature: divisor of the log-probabilities before a word is sampled; 0: the likeliest word.
      beams: number of beams of a written answer; above 1, use beam search.
      seed: seed of the samples.
    Returns: one answer for each prompt.
    Raises:
      UserError: the run reads no texts with images, a prompt is too long, or has not one `<image>` for each image.
      DataError: an image cannot be read.
    """
    from mmjax.evaluate.prompts import Prompt, likelihoods, written  # other runs do not need it
    from mmjax.models.next_word import GenerateConfig

    if isinstance(prompts, str):
      raise TypeError("answer takes a list of prompts, and a list of images for each; put the one prompt in a list")
    made = [Prompt.of(text, shown) for text, shown in zip(prompts, images, strict=True)]
    if choices is None or not made:
      config = GenerateConfig(max_new_tokens=max_new_tokens, temperature=temperature, beams=beams)
      return written(self, made, config, seed=seed)
    scores = likelihoods(self, made, [list(choices)] * len(made))
    return [choices[place] for place in scores.argmax(axis=1)]

  def chat(self, *, max_new_tokens: int = 32, temperature: float = 0.0, seed: int = 0) -> Any:
    """Begin a dialogue about images. The run must have been trained on dialogues.

    `run.chat().say("what is this?", [image])` returns the assistant's turn, and the next `say` goes on from there.

    Args:
      max_new_tokens: maximal number of tokens of a turn.
      temperature: divisor of the log-probabilities before a word is sampled; 0: the likeliest word.
      seed: seed of the samples.
    Returns: mmjax.evaluate.chat.Chat.
    Raises: UserError: the run was not trained on dialogues.
    """
    from mmjax.evaluate.chat import Chat  # other runs do not need it
    from mmjax.models.next_word import GenerateConfig

    return Chat(self, GenerateConfig(max_new_tokens=max_new_tokens, temperature=temperature), seed=seed)

  def generate(
    self,
    texts: Sequence[str],
    *,
    count: int = 1,
    guidance: float = 3.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    steps: int = 10,
    seed: int = 0,
    image: Any = None,
    region: tuple[int, int, int, int] | None = None,
  ) -> UInt8[np.ndarray, "texts count height width 3"]:
    """Draw images from texts.

    An image depends on its text, its number, the seed and the settings, and not on the other texts or on devices.

    Args:
      texts: the texts.
      count: number of images of each text.
      guidance: scale of classifier-free guidance. 1: none.
      temperature: divisor of the logits of the codes. 0: the likeliest code.
      top_k: sample among this many likeliest codes; 0: among all.
      top_p: sample among the smallest set of likeliest codes with at least this total probability.
      steps: number of steps of a model with masked decoding.
      seed: seed of the images.
      image: an image (an input of `preprocess`) that is edited or completed: only `region` is drawn. None: none.
      region: (top, left, bottom, right) in pixels of the preprocessed image. Pixels outside are those of `image`.
    Raises:
      UserError: the run draws no images, or a text is longer than the model reads.
      ValueError: a setting is out of range, or only one of `image` and `region` is given.
    """
    from mmjax.evaluators.drawn import drawn, kept_codes  # other runs do not need it
    from mmjax.models.drawing import DrawConfig
    from mmjax.report.overlay import seen_pixels

    if isinstance(texts, str):
      raise TypeError("generate takes a list of strings; wrap the one string in a list")
    if count < 1:
      raise ValueError(f"count={count} must be at least 1")
    config = DrawConfig(guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p, steps=steps)
    each = [text for text in texts for _ in range(count)]
    if (image is None) != (region is None):
      raise ValueError("to edit an image, give both image and region")
    known, inside = (None, None) if region is None else kept_codes(self, image, region)
    parts = list(drawn(self, each, np.tile(np.arange(count), len(texts)), config, seed=seed, known=known))
    side = image_size(self.experiment.model)
    images = np.concatenate([np.zeros((0, side, side, 3), np.uint8), *parts])
    if inside is not None:
      data = self.experiment.data
      images = np.where(inside[..., None], images, seen_pixels(self.preprocess(image), data.mean, data.std))
    return images.reshape(len(texts), count, side, side, 3)

  def _outputs(self, ask: Callable[..., Any], items: Sequence[Any] | Mapping[str, Sequence[Any]]) -> np.ndarray:
    """Outputs of a model of towers for items of its towers."""
    config: Any = self.experiment.model
    names = list(config.towers)
    given = items if isinstance(items, Mapping) else {names[0]: items}
    lengths = {len(rows) for rows in given.values()}
    some = bool(given) and set(given) <= set(names) if config.chooses else set(given) == set(names)
    if not some or len(lengths) != 1:
      raise UserError(
        f"the model in {self.workdir} reads {' and '.join(names)}: pass as many items of each, as "
        f"{{{', '.join(f'{name!r}: [...]' for name in names)}}}"
      )
    columns = {name: self.rows(name, rows) for name, rows in given.items()}
    absent = {name: np.asarray(config.towers[name].example(1)) for name in names if name not in given}

    def take(places: Int[np.ndarray, " n"]) -> dict[str, Any]:
      rows = {name: rows[places] for name, rows in columns.items()}
      if not absent:
        return rows
      there = np.tile([name in given for name in names], (len(places), 1))
      return rows | {name: np.repeat(one, len(places), 0) for name, one in absent.items()} | {PRESENT: there}

    return self._in_batches(ask, lengths.pop(), take)

  def _asking(self, protocol: type, what: str) -> "Run":
    """The run of the stream whose objective asks the model for a protocol."""
    for run in self.by_stream().values():
      if any(protocol in term.asks for term in run.experiment.objectives):
        return run
    raise UserError(f"the run in {self.workdir} has no objective that {what}")

  def rows(self, name: str, items: Sequence[Any]) -> Any:
    """Rows of items of a column, as in evaluation: an array or LazyRows."""
    kind = run_columns(self.experiment.data)[name]
    evaluating = Evaluating(self.transform, self.tokenizer, lambda record: record["captions"]["name"][0], self.fitted)
    records = [kind.record(item) for item in items]
    return kind.evaluated(name, records, np.arange(len(items)), evaluating)[name] if records else []

  def shown(self, images: Any, places: Int[np.ndarray, " n"]) -> LazyRows:
    """Images at some places, as rows of a batch. Only rows for devices of this process are read and preprocessed."""
    return LazyRows(places, self.transform.shape, lambda wanted: [self.preprocess(images[place]) for place in wanted])

  @functools.cached_property
  def transform(self) -> Any:
    """Transform of images in evaluation. None for a model without images."""
    side = image_size(self.experiment.model)
    if not side or self.image is not None:
      return self.image
    return eval_transform(self.experiment.data, side)

  def _encode(
    self, method: str | Callable[..., Any], total: int, take: Callable[[np.ndarray], Any]
  ) -> Float[np.ndarray, "n dim"]:
    """Unit-norm embeddings of the rows that `take` gives, by a method of the model."""
    found = self._in_batches(_Unit(method), total, take)
    model: Any = self.experiment.model
    return found if total else np.zeros((0, model.embed_dim), np.float32)

  def _in_batches(self, ask: Callable[..., Any], total: int, take: Callable[[np.ndarray], Any]) -> np.ndarray:
    """Results of `ask` in batches of one size, split over the mesh. The last one is padded. Every process gets all."""
    size, parts = self.batch_size(total), [np.zeros((0,), np.float32)]
    for start in range(0, total, size):
      taken = take(np.minimum(np.arange(start, start + size), total - 1))
      rows = jax.tree.map(lambda each: put_rows(each, batch_sharding(self.mesh)), taken)
      found = _ask(self.model, ask, replicated(self.mesh), self.params, rows)
      parts.append(np.asarray(found)[: total - start])
    return np.concatenate(parts[1:] or parts)

  def batch_size(self, rows: int) -> int:
    """Return the batch size for a number of rows.

    It is the number of shards times a power of two, so that few sizes are compiled. If there are enough rows, it
    reaches evaluation.batch_size.
    """
    shards = batch_shards(self.mesh)
    size = shards
    while size < min(rows, self.experiment.evaluation.batch_size):
      size *= 2
    return size


@dataclasses.dataclass(frozen=True)
class _EncodeColumn:
  """Embeddings of one column, as a method of a model. Equal instances share a compilation."""

  column: str

  def __call__(self, model: Any, rows: jax.Array) -> jax.Array:
    return model.project(model.encode({self.column: rows}))[self.column]


@dataclasses.dataclass(frozen=True)
class _Unit:
  """Unit-norm results of a method of a model, or of a function of it. Equal instances share a compilation."""

  method: str | Callable[..., Any]

  def __call__(self, model: Any, rows: jax.Array) -> jax.Array:
    found = getattr(model, self.method)(rows) if isinstance(self.method, str) else self.method(model, rows)
    return normalize(found)


def _classify(model: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
  return jax.nn.softmax(model.class_logits(model.encode(batch)))


def _predict(model: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
  return model.predict(model.encode(batch))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _ask(model: nn.Module, ask: Callable[..., Any], sharding: NamedSharding, params: Any, rows: Any) -> jax.Array:
  found: Any = model.apply({"params": params}, rows, method=ask)
  return jax.lax.with_sharding_constraint(found, sharding)
