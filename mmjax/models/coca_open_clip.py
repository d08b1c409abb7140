"""CoCa as open_clip has it, so that its published weights can be used (open_clip's coca_model.py)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.models.coca import Coca
from mmjax.models.comparing import ComparingConfig
from mmjax.nn.decoder import Decoder
from mmjax.nn.dense import Dense
from mmjax.nn.norm import LayerNorm
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class OpenClipCocaConfig(ComparingConfig):
  """A vision transformer with a pooler, a decoder in two halves, and their common space."""

  embed_dim: int = 512
  """Dimension of the common space; open_clip has no other width for the pooler and the text."""
  image: ViTConfig = ViTConfig(
    patch_size=32, pool="queries", input_norm=True, class_position=True, stem_bias=False, norm_epsilon=1e-5
  )
  """The image tower, whose queries are read."""
  text: WordsConfig = WordsConfig(width=512, num_heads=8, vocab_size=49_408, max_length=76, norm_epsilon=1e-5)
  """The unimodal half, which sees no picture."""
  multimodal_depth: int = 12
  """Blocks of the second half, which reads the picture."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.image.pool != "queries":
      raise ValueError(f'image.pool="{self.image.pool}" gives the captions nothing to read: set "queries"')
    if self.multimodal_depth < 1:
      raise ValueError(f"multimodal_depth={self.multimodal_depth} must be at least 1")

  def build(self) -> nn.Module:
    return OpenClipCoca(self)


class OpenClipCoca(Coca):
  """`Coca` but for what open_clip does differently from the paper.

  The pooler also reads a class token, and its first query is the image's embedding; the class token of a text has a
  position, of a text with max_length tokens; only it is normalised after the first half; cross-attention is a block of
  its own, with a norm of the picture's tokens and an MLP; words are scored by a matrix of their own.

  Parameters: image, words, class_token, class_position, unimodal, class_norm, multimodal, word_scores, the
  projections, logit_scale.
  """

  config: OpenClipCocaConfig  # type: ignore[assignment]

  def setup(self) -> None:
    c = self.config
    self.image = ViT(c.image)
    self.words = Words(c.text)
    init, shape = nn.initializers.normal(0.01), (1, c.text.width)
    self.class_token = self.param("class_token", init, shape, jnp.float32)
    self.class_position = self.param("class_position", init, shape, jnp.float32)
    self.unimodal = Decoder(c.text, final_norm=False)
    self.class_norm = LayerNorm(c.text.norm_epsilon)
    self.multimodal = Decoder(dataclasses.replace(c.text, depth=c.multimodal_depth), cross_mlp=True)
    self.word_scores = Dense(c.text.vocab_size, nn.initializers.normal(c.text.width**-0.5), use_bias=False)
    self.setup_comparing(c.image.pooled_width, c.text.width)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Pictures and texts of the batch, whichever it has, each on its own; as in `Coca`."""
    encoded = {"image": self.image(batch["image"], rng=fold_in(rng, 0))} if "image" in batch else {}
    if "text" in batch:
      encoded["text"] = self.encode_words(batch["text"], rng=rng)
    return encoded

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """The unimodal half. As in open_clip, what is hidden are not the words of padding but those that follow padding.

    So the first word of padding is read, and the class token, which comes last, reads itself only in a text without
    any. Words before the padding see none of it.
    """
    words, mask = self.words(ids), self.config.text.mask(ids)
    last = jnp.broadcast_to((self.class_token + self.class_position)[None], (ids.shape[0], 1, words.shape[2]))
    readable = jnp.concatenate([jnp.ones_like(mask[:, :1]), mask], axis=1)
    tokens, _ = self.unimodal(jnp.concatenate([words, last], axis=1), readable, causal=True, rng=fold_in(rng, 1))
    return Encoded(tokens[:, :-1], mask, self.class_norm(tokens[:, -1]))

  def caption_logits(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    """Scores of the next word from what the second half says, float32, by a matrix of their own."""
    return self.word_scores(tokens)
