"""Prompts with images: texts that a model writes after them, and the likelihood of given texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.data.columns.interleaved import PLACE, Interleaved, Piece
from mmjax.errors import UserError
from mmjax.evaluate.forward import gathered, over_rows, text_tokenizer
from mmjax.models.generate import generate
from mmjax.models.interleaved import IMAGES
from mmjax.models.next_word import GenerateConfig
from mmjax.nn.cache import rewind

if TYPE_CHECKING:
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A text that a model continues, and its images.

  Attributes:
    pieces: parts of the text. The last one goes on.
    images: an image for each `<image>`.
  """

  pieces: tuple[Piece, ...]
  images: tuple[Any, ...]

  @classmethod
  def of(cls, text: str, images: Sequence[Any], shots: Sequence[tuple[str, Sequence[Any]]] = ()) -> Prompt:
    """A prompt of whole texts with their images, and of a text that goes on.

    Args:
      text: the text that goes on.
      images: its images.
      shots: texts before it, each with its images.
    Raises: UserError: a text does not have one `<image>` for each of its images.
    """
    for said, shown in (*shots, (text, images)):
      if said.count(PLACE) != len(shown):
        raise UserError(
          f"the prompt {said!r:.60} has {said.count(PLACE)} {PLACE} and {len(shown)} images: write one {PLACE} for each"
        )
    pieces = (*(Piece(said) for said, _ in shots), Piece(text, last=False))
    return cls(pieces, (*(image for _, shown in shots for image in shown), *images))


def interleaved_column(run: Run) -> Interleaved:
  """The column of texts with images of a run. Raises UserError for a run without one."""
  column = run.experiment.data.columns.get("text") or run.experiment.data.source.columns.get("text")
  if not isinstance(column, Interleaved):
    raise UserError(f"the run in {run.workdir} reads no texts with images: train a Flamingo or a projector model")
  return column


def written(run: Run, prompts: Sequence[Prompt], config: GenerateConfig, *, seed: int = 0) -> list[str]:
  """Write a text after each prompt.

  Args:
    run: a run with a column Interleaved.
    prompts: the prompts.
    config: decoding method and length.
    seed: seed of the samples. A text depends on its prompt, its place and the seed, and not on other prompts.
  Raises: UserError: a prompt is too long, or has too many images.
  """
  tokenizer = text_tokenizer(run)
  ends = () if tokenizer.chunk_id is None or config.beams > 1 else (tokenizer.chunk_id,)
  config = dataclasses.replace(config, end_ids=(*config.end_ids, *ends))
  rows = prompt_rows(run, prompts, config.max_new_tokens)
  rows["number"] = np.arange(len(prompts), dtype=np.int32)
  ids = gathered(over_rows(run, _Write(config, seed), len(prompts), _taker(rows))) if prompts else []
  stops = {tokenizer.eos_id, tokenizer.chunk_id, tokenizer.pad_id}
  return [tokenizer.decode(_until(row.tolist(), stops)).strip() for row in ids]


def likelihoods(
  run: Run, prompts: Sequence[Prompt], choices: Sequence[Sequence[str]]
) -> Float[np.ndarray, "prompts choices"]:
  """Log-probability in nats of each choice after its prompt, with the chunk token that ends it, if there is one.

  Args:
    run: a run with a column Interleaved.
    prompts: the prompts.
    choices: texts for each prompt, as many for each.
  Raises: UserError: a prompt is too long or has too many images, or a choice is empty.
  """
  tokenizer = text_tokenizer(run)
  end = [] if tokenizer.chunk_id is None else [tokenizer.chunk_id]
  names = sorted({text for texts in choices for text in texts})
  known = dict(zip(names, tokenizer.word_ids([f" {name.strip()}" for name in names]), strict=True))
  empty = [text for text, ids in known.items() if not ids]
  if empty:
    raise UserError(f"the choice {empty[0]!r} has no words to rank")
  longest = max(len(ids) for ids in known.values()) + len(end)
  table: np.ndarray = np.full((len(prompts), len(choices[0]), longest), tokenizer.pad_id, np.int32)
  counts = np.zeros(table.shape[:2], np.int32)
  for row, texts in enumerate(choices):
    for place, text in enumerate(texts):
      ids = [*known[text], *end]
      table[row, place, : len(ids)], counts[row, place] = ids, len(ids)
  rows = prompt_rows(run, prompts, longest) | {"choices": table, "counts": counts}
  return gathered(over_rows(run, choice_likelihoods, len(prompts), _taker(rows)))


def prompt_rows(run: Run, prompts: Sequence[Prompt], room: int) -> dict[str, Any]:
  """Arrays of prompts: "text", padded to one length, and the images, which are decoded when they are read.

  Args:
    run: a run with a column Interleaved.
    prompts: the prompts.
    room: number of tokens that follow a prompt.
  Raises: UserError: a prompt is too long, or has too many images.
  """
  column, tokenizer, model = interleaved_column(run), text_tokenizer(run), run.experiment.model
  text: Any = getattr(model, "text")  # noqa: B009  # not all models have it
  length = text.max_length - room
  ids = np.full((len(prompts), max(length, 1)), tokenizer.pad_id, np.int32)
  for row, prompt in zip(ids, prompts, strict=True):
    words = column.ids(prompt.pieces, tokenizer, end=False)[0]
    if len(words) > length:
      raise UserError(
        f"a prompt has {len(words)} tokens and {room} may follow, but the model reads {text.max_length}: use fewer "
        "shots or a shorter text"
      )
    if len(prompt.images) > column.images:
      raise UserError(
        f"a prompt has {len(prompt.images)} images, but the model reads {column.images}: use fewer shots or images"
      )
    row[: len(words)] = words
  shown = [(prompt.images, "an image of a prompt") for prompt in prompts]
  return {"text": ids, IMAGES: column.lazy_images(shown, run.transform)}


def _taker(rows: Mapping[str, Any]) -> Any:
  return lambda places: {name: each[places] for name, each in rows.items()}


def _until(ids: list[int], stops: set[int | None]) -> list[int]:
  return ids[: next((place for place, token in enumerate(ids) if token in stops), len(ids))]


@dataclasses.dataclass(frozen=True)
class _Write:
  """(model, batch with prompts, images and numbers) -> ids of the texts after them. Equal instances share a program."""

  config: GenerateConfig
  seed: int

  def __call__(self, model: Any, batch: Any) -> Int[Array, "batch new"]:
    context = model.encode({IMAGES: batch[IMAGES]})[IMAGES]
    module, variables = model.unbind()
    prompt = batch["text"]
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(self.seed), batch["number"])
    made = generate(module, variables["params"], prompt, context, config=self.config, keys=keys)
    start = prompt_lengths(prompt, model.config.text.pad_id)
    places = start[:, None] + jnp.arange(self.config.max_new_tokens, dtype=jnp.int32)[None]
    return jnp.take_along_axis(made.ids, places, axis=1)


def choice_likelihoods(model: Any, batch: Any) -> Float[Array, "batch choices"]:
  """Log-probability of each of `choices` [batch, choices, length], of which `counts` tokens count, after a prompt.

  The prompt and its images are read once, into a cache that the choices share.
  """
  module, variables = model.unbind()
  context = model.encode({IMAGES: batch[IMAGES]})[IMAGES]
  prompt, choices = batch["text"], batch["choices"]
  decode = lambda ids, context, cache: module.apply(variables, ids, context, cache=cache, method="decode")
  length = prompt_lengths(prompt, model.config.text.pad_id)
  logits, cache = decode(prompt, context, module.empty_cache(len(prompt), prompt.shape[1] + choices.shape[2]))
  last = jnp.take_along_axis(logits, (length - 1)[:, None, None], axis=1)
  cache = rewind(cache, length)

  def score(of: tuple[Array, Array]) -> Float[Array, "batch"]:
    ids, count = of
    logits = jnp.concatenate([last, decode(ids, None, cache)[0][:, :-1]], axis=1)
    said = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, :, None], axis=2)[..., 0]
    counted = jnp.arange(ids.shape[1], dtype=jnp.int32)[None] < count[:, None]
    return jnp.where(counted, said, 0.0).sum(1)

  return jax.lax.map(score, (jnp.moveaxis(choices, 1, 0), batch["counts"].T)).T


def prompt_lengths(prompt: Int[Array, "batch length"], pad_id: int) -> Int[Array, "batch"]:
  """Number of tokens of each prompt, without the padding after it; at least 1."""
  places = jnp.arange(1, prompt.shape[1] + 1, dtype=jnp.int32)[None]
  return jnp.maximum(jnp.where(prompt != pad_id, places, 0).max(1), 1)
