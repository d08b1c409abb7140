"""Parts of a model that are exported: functions from arrays to one array, found by the protocols of the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mmjax.deploy.formats import DeployError
from mmjax.evaluators import WrittenAnswers, WrittenCaptions
from mmjax.models.config import image_size
from mmjax.models.generate import generate
from mmjax.models.joined import PRESENT
from mmjax.models.next_word import GenerateConfig
from mmjax.models.protocols import Answers, Classifies, Compares, Predicts, missing
from mmjax.nn.norm import normalize

if TYPE_CHECKING:
  from mmjax.run import Run

TEXTS = (
  "a photo of a cat",
  "",
  "two red hearts, a very long sentence that does not fit into the model " * 8,
  "ein Käse 東京",
)
"""Texts that an export is checked with."""


@dataclasses.dataclass(frozen=True)
class Input:
  """An array that a part reads.

  Attributes:
    name: name of the array.
    shape: shape of one row.
    dtype: name of the dtype.
    prepare: "image" if it is a preprocessed image, "text" if it is token ids, "array" if the caller makes the rows.
  """

  name: str
  shape: tuple[int, ...]
  dtype: str
  prepare: str


@dataclasses.dataclass(frozen=True)
class Part:
  """A function of a model.

  Attributes:
    name: the name of its file: a column for embeddings, else classify, predict, answer, caption or write_answer.
    gives: "embedding" (unit norm), "probabilities", "number" (in standard deviations of the training data) or "ids" (of
      the tokens of a text, with its end token and padding).
    inputs: arrays that it reads.
    ask: function of (model, arrays by name) that returns one array [batch, ...].
  """

  name: str
  gives: str
  inputs: tuple[Input, ...]
  ask: Callable[[Any, Mapping[str, Array]], Array]

  def __call__(self, model: Any, params: Any, arrays: Mapping[str, Array]) -> Array:
    """Compute the part.

    Args:
      model: the linen module.
      params: its parameters.
      arrays: arrays by name, each with a leading batch axis.
    """
    found: Any = model.apply({"params": params}, arrays, method=self.ask)
    return found.astype(jnp.int32 if self.gives == "ids" else jnp.float32)


def parts_of(run: Run) -> list[Part]:
  """List the parts of a run's model that can be exported.

  Args:
    run: the run.
  Returns: for a model with a shared space an embedding for each tower; otherwise what the model predicts.
  Raises: DeployError: the model neither embeds, classifies, predicts, answers nor writes texts.
  """
  model, config = run.model, run.experiment.model
  inputs = {name: _input(run, name, array) for name, array in config.example(1).items()}
  every, found = tuple(inputs.values()), []
  if not missing(model, Compares):
    found += [Part(name, "embedding", (one,), _Embed(name)) for name, one in inputs.items()]
  if not missing(model, Classifies):
    found.append(Part("classify", "probabilities", _with_present(config, every), _classify))
  if not missing(model, Predicts):
    found.append(Part("predict", "number", _with_present(config, every), _predict))
  if _answers(run) and {"image", "text"} <= set(inputs):
    found.append(Part("answer", "probabilities", every, _answer))
  found += _writing(run, inputs)
  if not found:
    raise DeployError(
      f"a model of {type(config).__name__} has no part for this format: it neither embeds, classifies, predicts a "
      "number, chooses an answer, nor writes texts from an image. Its weights can be exported: --to mmjax"
    )
  return found


def check_rows(part: Part, run: Run, rows: int, seed: int) -> dict[str, np.ndarray]:
  """Make rows that an export is checked with.

  Args:
    part: the part.
    run: the run, whose tokenizer makes ids of TEXTS.
    rows: number of rows.
    seed: seed of the random numbers.
  Returns: arrays by name: normal noise for images, ids of texts, small numbers for other integers.
  """
  rng, made = np.random.default_rng(seed), {}
  for one in part.inputs:
    shape = (rows, *one.shape)
    if one.prepare == "text" and run.tokenizer is not None:
      made[one.name] = run.tokenizer([TEXTS[(seed + row) % len(TEXTS)] for row in range(rows)])
    elif one.dtype == "bool":
      made[one.name] = np.tile(np.arange(one.shape[0]) == seed % one.shape[0], (rows, 1)) | (rng.random(shape) < 0.5)
    elif np.issubdtype(one.dtype, np.integer):
      made[one.name] = rng.integers(0, 2, shape).astype(one.dtype)
    else:
      made[one.name] = rng.standard_normal(shape).astype(one.dtype)
  return made


@dataclasses.dataclass(frozen=True)
class _Embed:
  """Unit-norm embeddings of one column, as Run.encode_image, Run.encode_text and Run.encode compute them."""

  column: str

  def __call__(self, model: Any, arrays: Mapping[str, Array]) -> Array:
    direct = getattr(model, f"encode_{self.column}", None) if self.column in ("image", "text") else None
    if direct is not None:
      return normalize(direct(arrays[self.column]))
    return model.project(model.encode(dict(arrays)))[self.column]


@dataclasses.dataclass(frozen=True)
class _Write:
  """Texts that a decoder writes, the likeliest word each time, from a cache of keys and values: their token ids.

  Attributes:
    begin: token that a text begins with.
    length: largest number of tokens after it.
    question: True if the decoder reads the fusion of an image and a question. False: the encoded image.
  """

  begin: int
  length: int
  question: bool

  def __call__(self, model: Any, arrays: Mapping[str, Array]) -> Array:
    encoded = model.encode(dict(arrays))
    context = model.fuse(encoded)["text"] if self.question else encoded["image"]
    module, variables = model.unbind()
    prompt = jnp.full((context.mask.shape[0], 1), self.begin, jnp.int32)
    return generate(module, variables["params"], prompt, context, config=GenerateConfig(self.length)).ids[:, 1:]


def _writing(run: Run, inputs: Mapping[str, Input]) -> list[Part]:
  """The part that writes captions or, for a model that reads questions, answers."""
  tokenizer, experiment = run.tokenizer, run.experiment
  if tokenizer is None or "image" not in inputs:
    return []
  if WrittenCaptions().applies(experiment):
    write = _Write(int(tokenizer([""])[0, 0]), tokenizer.config.max_length - 1, question=False)
    return [Part("caption", "ids", (inputs["image"],), write)]
  if WrittenAnswers().applies(experiment) and "text" in inputs:
    begin = int(tokenizer.answer_text([""])[0, 0])
    write = _Write(begin, tokenizer.config.answer_length - 1, question=True)
    return [Part("write_answer", "ids", (inputs["image"], inputs["text"]), write)]
  return []


def _classify(model: Any, arrays: Mapping[str, Array]) -> Array:
  return jax.nn.softmax(model.class_logits(model.encode(dict(arrays))))


def _predict(model: Any, arrays: Mapping[str, Array]) -> Array:
  return model.predict(model.encode(dict(arrays)))


def _answer(model: Any, arrays: Mapping[str, Array]) -> Array:
  from mmjax.evaluate.questions import answer_logits

  return jax.nn.softmax(answer_logits(model, dict(arrays)))


def _answers(run: Run) -> bool:
  """True if the model was trained to choose among answers. Some models have the layer without."""
  return any(Answers in term.asks for term in run.experiment.objectives) and bool(
    run.tokenizer and run.tokenizer.answers
  )


def _input(run: Run, name: str, example: Array) -> Input:
  shape, side = example.shape[1:], image_size(run.experiment.model)
  prepare = "array"
  if side and shape == (side, side, 3):
    prepare = "image"
  elif run.tokenizer is not None and example.dtype == jnp.int32 and shape == (run.tokenizer.config.max_length,):
    prepare = "text"
  return Input(name, shape, str(example.dtype), prepare)


def _with_present(config: Any, inputs: tuple[Input, ...]) -> tuple[Input, ...]:
  """The inputs, and which of them an example has, for a model that may lack some."""
  return (*inputs, Input(PRESENT, (len(inputs),), "bool", "array")) if config.chooses else inputs
