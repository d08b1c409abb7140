"""A model that has seen everything: it finds pictures and texts in a table, and says what the table says."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.data import eval_transform, evaluation_batches, make_source, make_tokenizer
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.evaluators import built_in
from mmjax.evaluators.config import EvaluationConfig
from mmjax.models.config import ModelConfig
from mmjax.models.vqa import VqaConfig
from mmjax.nn.cache import Cache
from mmjax.parallel.mesh import ParallelConfig, make_mesh
from mmjax.run import Run
from mmjax.train.loop import fitted
from mmjax.types import Encoded

SIZE = 16
OF = {"rerank": "matching", "beams": "captions", "java_metrics": "captions", "masked_words": "hidden_words"}


@dataclasses.dataclass(frozen=True)
class KnowingConfig(ModelConfig):
  image: ViTConfig = ViTConfig(image_size=SIZE, patch_size=8, width=16, depth=1, num_heads=2, pool="mean")
  text: TextConfig = TextConfig(vocab_size=600, eos_id=1)
  num_answers: int = 1

  def build(self):
    return Knowing(self)


@dataclasses.dataclass(frozen=True)
class KnowingExperiment:
  data: Any
  objectives: tuple[Any, ...]
  evaluation: EvaluationConfig
  model: Any = KnowingConfig()

  def by_stream(self):
    return {"": self}


class Knowing(nn.Module):
  """Parameters: image [n, pixels] and text [n, t] of the validation split, and what is true of each row."""

  config: KnowingConfig

  @nn.nowrap
  def _find(self, name, rows):
    """[batch, n], 1 at the first equal row of the table."""
    table = self.get_variable("params", name)
    rows = rows.reshape(len(rows), -1)
    far = jnp.abs(rows[:, None].astype(jnp.float32) - table[None]).sum(-1)
    return jax.nn.one_hot(far.argmin(1), len(table))

  def encode(self, batch, *, rng=None):
    found = {name: self._find(name, batch[name]) for name in ("image", "text") if name in batch}
    return {name: Encoded(rows[:, None], jnp.ones((len(rows), 1), bool), rows) for name, rows in found.items()}

  def encode_words(self, ids, *, rng=None):
    return Encoded(jnp.zeros((*ids.shape, 1)), ids > 0, jnp.zeros((len(ids), 1)))

  def project(self, encoded):
    """Images and texts of one concept lie together; whole neighbourhoods of concepts nearly so."""
    place = self.get_variable("params", "place")
    return {name: e.pooled @ place for name, e in encoded.items()}

  def fuse(self, encoded, *, rng=None):
    """Of a question about a picture, the row where both stand; of hidden words, what the picture's text says."""
    image, text = encoded["image"], encoded["text"]
    if text.tokens.shape[-1] == 1:
      words = image.pooled @ self.get_variable("params", "text").astype(jnp.float32)
      return {"text": Encoded(words[:, :, None], text.mask, words)}
    concept = self.get_variable("params", "concept")
    same = (image.pooled @ concept == text.pooled @ concept).astype(jnp.float32)
    both = jax.nn.one_hot(self._both(image, text), image.pooled.shape[1])
    pooled = jnp.concatenate([both, same[:, None]], 1)
    return {
      "text": Encoded(pooled[:, None], jnp.ones((len(pooled), 1), bool), pooled),
      "image": Encoded(pooled[:, None], jnp.ones((len(pooled), 1), bool), pooled),
    }

  @nn.nowrap
  def _both(self, image, text):
    """The row of the table with this picture and this question (the same picture may be asked about twice)."""
    pictures, texts = (self.get_variable("params", name).astype(jnp.float32) for name in ("image", "text"))
    picture, words = image.pooled @ pictures, text.pooled @ texts
    far = jnp.abs(picture[:, None] - pictures[None]).sum(-1) + jnp.abs(words[:, None] - texts[None]).sum(-1)
    return far.argmin(1)

  def match_logits(self, pooled):
    return jnp.stack([1 - pooled[:, -1], pooled[:, -1]], axis=1)

  def answer_logits(self, pooled):
    return pooled[:, :-1] @ jax.nn.one_hot(self.get_variable("params", "answer"), self.config.num_answers)

  def relevance_logits(self, tokens):
    masks = self.get_variable("params", "relevance")
    return (tokens[:, 0, :-1] @ (masks.reshape(len(masks), -1) - 0.5)).reshape(-1, SIZE, SIZE)

  def word_logits(self, tokens, *, fused=True):
    return jax.nn.one_hot(tokens[..., 0].astype(jnp.int32), self.config.text.vocab_size)

  def decode(self, ids, context, *, rng=None, cache=None, text=None):
    """The words that the table has for the row, one after another; `layers` of the cache keep the row."""
    rows = context.pooled if context is not None else cache.layers[0]
    said = self.get_variable(
      "params", "answer_text" if rows.shape[1] > len(self.get_variable("params", "text")) else "text"
    )
    start = jnp.zeros(len(rows), jnp.int32) if cache is None else cache.length
    place = jnp.minimum(start[:, None] + 1 + jnp.arange(ids.shape[1])[None], said.shape[1] - 1)
    words = jnp.take_along_axis((rows[:, : len(said)] @ said.astype(jnp.float32)).astype(jnp.int32), place, axis=1)
    logits = 20 * jax.nn.one_hot(words, self.config.text.vocab_size)
    return logits if cache is None else (logits, Cache(cache.length + ids.shape[1], (rows,)))

  @nn.nowrap
  def empty_cache(self, batch_size, length):
    return Cache(jnp.zeros(batch_size, jnp.int32), (jnp.zeros((batch_size, 1)),))


@functools.lru_cache(maxsize=4)
def table(data, answers=()):
  """(tokenizer, the validation split as one batch)."""
  tokenizer, source = make_tokenizer(data), make_source(data, "validation")
  batch = next(evaluation_batches(source, eval_transform(data, SIZE), tokenizer, batch_size=len(source)))
  return tokenizer, batch


def evaluation_config(*, batch_size=256, **settings):
  """The configuration with settings of evaluators: `rerank=4` is --evaluation.evaluators.matching.rerank 4."""
  evaluators = built_in()
  for setting, value in settings.items():
    evaluators[OF[setting]] = dataclasses.replace(evaluators[OF[setting]], **{setting: value})
  return EvaluationConfig(batch_size=batch_size, evaluators=evaluators)


def knowing_run(data, objectives, *, devices=8, **evaluation):
  """A Run of the knowing model on the first devices."""
  tokenizer, batch = table(data)
  experiment = KnowingExperiment(data, objectives, evaluation_config(**evaluation))
  experiment = fitted(experiment, tokenizer, num_records={"": 1})
  concepts = np.unique(batch["concept"], return_inverse=True)[1]
  params = {
    name: jnp.asarray(np.asarray(batch[name]).reshape(len(concepts), -1), jnp.float32) for name in ("image", "text")
  }
  params |= {name: jnp.asarray(batch[name]) for name in ("answer", "answer_text", "relevance") if name in batch}
  angle = (concepts // 2 * 2) * 2 * np.pi / (concepts.max() + 2)  # two concepts at each place: similarity cannot tell
  params |= {
    "concept": jnp.asarray(concepts, jnp.float32),
    "place": jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], 1), jnp.float32),
  }
  mesh = make_mesh(ParallelConfig(), jax.devices()[:devices])
  return Run(experiment, Path("runs/knowing"), Knowing(experiment.model), params, tokenizer, mesh, 7)


def untrained_run(run, seed=0):
  """The same data with a small VQA model that has learnt nothing."""
  from mmjax.fusion.config import FusionConfig
  from mmjax.models.config import init_params

  image = ViTConfig(image_size=SIZE, patch_size=8, width=8, depth=1, num_heads=2, mlp_dim=8, pool="mean")
  text = TextConfig(width=8, depth=1, num_heads=2, mlp_dim=8, causal=False, pool="mean")
  config = VqaConfig(image, text, FusionConfig(width=8, depth=1, num_heads=2, mlp_dim=8))
  experiment = fitted(dataclasses.replace(run.experiment, model=config), run.tokenizer, num_records={"": 1})
  model = experiment.model.build()
  params = jax.jit(functools.partial(init_params, model))(jax.random.key(seed))
  return dataclasses.replace(run, experiment=experiment, model=model, params=params)
