"""Drawing of image codes from a text: code by code with a cache, or in parallel from masked codes."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Key

from mmjax.models.generate import choose
from mmjax.models.next_word import GenerateConfig
from mmjax.nn.stochastic import fold_in


@dataclasses.dataclass(frozen=True)
class DrawConfig:
  """Configuration of drawing. Raises ValueError if the fields are inconsistent."""

  guidance: float = 1.0
  """Scale s of classifier-free guidance (Ho and Salimans 2021): u + s * (c - u), of the logits c with the text and u
  without it. 1: none, at half the cost. It needs a model that was trained with dropped captions."""
  temperature: float = 1.0
  """Divisor of the logits before a code is sampled; 0: the likeliest code."""
  top_k: int = 0
  """Sample among this many likeliest codes; 0: among all."""
  top_p: float = 1.0
  """Sample among the smallest set of likeliest codes with at least this total probability."""
  steps: int = 10
  """Number of steps of a model with masked decoding (MaskGIT: 8 to 12)."""
  choice_temperature: float = 4.5
  """Noise on the confidence by which a model with masked decoding keeps codes. It falls linearly to 0."""

  def __post_init__(self) -> None:
    if self.guidance < 0 or self.choice_temperature < 0:
      raise ValueError(
        f"guidance={self.guidance} and choice_temperature={self.choice_temperature} must not be negative"
      )
    if self.steps < 1:
      raise ValueError(f"steps={self.steps} must be at least 1")
    self.sampling  # noqa: B018  # checks the other fields

  @property
  def sampling(self) -> GenerateConfig:
    """Settings of the sampling of one code."""
    return GenerateConfig(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


@functools.partial(jax.jit, static_argnames=("model", "config"))
def draw(
  model: Any,
  params: Any,
  text: Int[Array, "batch length"],
  keys: Key[Array, "batch"],
  known: Int[Array, "batch positions"],
  *,
  config: DrawConfig,
) -> Int[Array, "batch positions"]:
  """Draw the codes of one image for each text.

  The result of a row depends only on its text, its key and its known codes, and not on other rows or on devices. The
  function is compiled once for each model, configuration and shape.

  Args:
    model: a linen module of a TextToImageConfig.
    params: parameters of the model.
    text: token ids, padded to the length of training.
    keys: one key per row.
    known: codes that are kept, of an image that is completed or edited; -1 for those to draw.
    config: how codes are sampled.
  """
  guided = config.guidance != 1.0
  pad = jnp.full_like(text, model.config.text.pad_id)
  texts = jnp.concatenate([text, pad]) if guided else text

  def twice(rows: Array) -> Array:
    return jnp.concatenate([rows, rows]) if guided else rows

  def mixed(logits: Float[Array, "rows *places codes"]) -> Float[Array, "batch *places codes"]:
    if guided:
      given, without = jnp.split(logits, 2)
      logits = without + config.guidance * (given - without)
    return jax.nn.log_softmax(logits)

  by_method = {"autoregressive": _one_by_one, "masked": _in_parallel}
  decoding = model.config.decoding
  return by_method[decoding](model, params, texts, keys, known, config, twice, mixed)


def _one_by_one(
  model: Any, params: Any, texts: Array, keys: Array, known: Array, config: DrawConfig, twice: Any, mixed: Any
) -> Int[Array, "batch positions"]:
  positions = known.shape[1]
  logits, cache = model.apply({"params": params}, texts, method="begin")

  def add(codes: Array, log_probs: Array, place: Array) -> tuple[Array, Array]:
    code, kept = choose(log_probs, config.sampling, fold_in(keys, place)), jnp.take(known, place, axis=1)
    code = jnp.where(kept < 0, code, kept)
    return lax.dynamic_update_slice_in_dim(codes, code[:, None], place, axis=1), code

  def body(place: Array, carry: Any) -> Any:
    codes, logits, cache = carry
    codes, code = add(codes, mixed(logits), place)
    logits, cache = model.apply({"params": params}, twice(code), place, cache, method="extend")
    return codes, logits, cache

  codes, logits, _ = lax.fori_loop(0, positions - 1, body, (known, logits, cache))
  return add(codes, mixed(logits), jnp.asarray(positions - 1))[0]


def _in_parallel(
  model: Any, params: Any, texts: Array, keys: Array, known: Array, config: DrawConfig, twice: Any, mixed: Any
) -> Int[Array, "batch positions"]:
  """MaskGIT (Chang et al. 2022, section 3.2): in each step, keep the codes with the highest confidence.

  The number of masked codes falls from all to none by a cosine.
  """
  positions, mask = known.shape[1], model.config.image.num_codes
  places, number = jnp.arange(positions, dtype=jnp.int32), (known < 0).sum(1, keepdims=True)

  def body(step: Array, codes: Array) -> Array:
    _, logits = model.apply({"params": params}, texts, twice(codes), method="draw_logits")
    log_probs, own = mixed(logits), fold_in(keys, step)
    each = jax.vmap(lambda key: jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, places))(own)
    flat = choose(log_probs.reshape(-1, mask), config.sampling, each.reshape(-1))
    drawn = flat.reshape(codes.shape)
    unknown = codes == mask
    left = 1.0 - (step + 1).astype(jnp.float32) / config.steps
    sure = jnp.take_along_axis(log_probs, drawn[:, :, None], axis=2)[:, :, 0]
    noise = jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, positions), (positions,)))(own)
    sure = jnp.where(unknown, sure + config.choice_temperature * left * noise, jnp.inf)
    hidden = jnp.floor(number.astype(jnp.float32) * jnp.cos(jnp.pi / 2 * (1.0 - left))).astype(jnp.int32)
    hidden = jnp.where(step + 1 == config.steps, 0, hidden)
    rank = jnp.argsort(jnp.argsort(sure, axis=1), axis=1)
    return jnp.where(unknown & (rank < hidden), mask, jnp.where(unknown, drawn, codes))

  return lax.fori_loop(0, config.steps, body, jnp.where(known < 0, mask, known))
