"""CoCa in open_clip's form (coca_model.py), for its published weights."""

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
  """An image encoder with a pooler, a decoder in two parts, and a common embedding space.

  Raises ValueError for inconsistent fields.
  """

  embed_dim: int = 512
  """Dimension of the common embedding space. In open_clip it is also the width of the pooler and of the text."""
  image: ViTConfig = ViTConfig(
    patch_size=32, pool="queries", input_norm=True, class_position=True, stem_bias=False, norm_epsilon=1e-5
  )
  """The image encoder. Captions read its query outputs or, with pool="cls" and "cls_mean", its patches."""
  text: WordsConfig = WordsConfig(width=512, num_heads=8, vocab_size=49_408, max_length=76, norm_epsilon=1e-5)
  """The unimodal decoder, which does not read the image."""
  multimodal_depth: int = 12
  """Blocks of the multimodal decoder, which reads the image."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.image.pool not in ("queries", "cls", "cls_mean"):
      raise ValueError(
        f'image.pool="{self.image.pool}" is not one of open_clip\'s CoCa: set "queries", "cls" or "cls_mean"'
      )
    if self.multimodal_depth < 1:
      raise ValueError(f"multimodal_depth={self.multimodal_depth} must be at least 1")

  def build(self) -> nn.Module:
    return OpenClipCoca(self)


class OpenClipCoca(Coca):
  """`Coca` with the differences between open_clip and the paper.

  * The pooler also reads a class token, and its first query gives the image embedding. There may be no pooler: then
    the class token or the mean over the patches does.
  * The class token of a text has a position embedding, that of the position after max_length tokens.
  * After the unimodal decoder, only the class token is normalised.
  * Cross-attention is a separate block, with a norm on the image tokens and an MLP.
  * Words are scored by a separate matrix.

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
    """Encodes the images and texts of the batch separately, as in `Coca`."""
    encoded = {}
    if "image" in batch:
      image = self.image(batch["image"], rng=fold_in(rng, 0))
      first = 0 if self.config.image.pool == "queries" else 1  # captions do not read the class token
      encoded["image"] = Encoded(image.tokens[:, first:], image.mask[:, first:], image.pooled)
    if "text" in batch:
      encoded["text"] = self.encode_words(batch["text"], rng=rng)
    return encoded

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """Applies the unimodal decoder.

    As in open_clip, the mask hides the tokens that follow padding, not the padding itself. Attention can therefore read
    the first padding token, and it can read the class token, which comes last, only in a text without padding. Words
    before the padding do not read it.
    """
    words, mask = self.words(ids), self.config.text.mask(ids)
    last = jnp.broadcast_to((self.class_token + self.class_position)[None], (ids.shape[0], 1, words.shape[2]))
    readable = jnp.concatenate([jnp.ones_like(mask[:, :1]), mask], axis=1)
    tokens, _ = self.unimodal(jnp.concatenate([words, last], axis=1), readable, causal=True, rng=fold_in(rng, 1))
    return Encoded(tokens[:, :-1], mask, self.class_norm(tokens[:, -1]))

  def caption_logits(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    """Scores of the next word in float32 from outputs of the multimodal decoder, by a separate matrix."""
    return self.word_scores(tokens)
