"""Model FLOPs: the matmuls a model's mathematics asks for, whatever an implementation saves or repeats.

block(t, w, h) = 2 t (4 w^2 + 2 w h) + 4 t^2 w        query, key, value, out; the MLP; query key^T and weights value
image = stem + depth block(t, w, h) + pool + 2 w e    t = (image_size / patch_size)^2, and one class token
text  = depth block(l, w, h) + pool + 2 w e
train = 3 (image + text + 2 batch e)                  forward, and twice that backward; the logits per example
"""

from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.nn.embeddings import stem_widths
from mmjax.nn.transformer import TransformerConfig


def _transformer(c: TransformerConfig, length: int) -> int:
  per_token = 4 * c.width**2 + 2 * c.width * c.hidden
  return c.depth * (2 * length * per_token + 4 * length**2 * c.width)


def _attention_pool(c: TransformerConfig, length: int) -> int:
  """Keys and values of every token; one query, one output, one pass through the MLP."""
  return 4 * length * c.width**2 + 4 * length * c.width + 4 * c.width**2 + 4 * c.width * c.hidden


def image_flops(c: ViTConfig) -> int:
  """Forward FLOPs of the image tower for one image, patch dropout not counted off."""
  patches = c.grid**2
  if c.stem == "patch":
    stem = 2 * patches * 3 * c.patch_size**2 * c.width
  else:
    widths = [3, *stem_widths(c.width, c.patch_size)]
    sides = [c.image_size >> (i + 1) for i in range(len(widths) - 1)]
    stem = sum(2 * side**2 * 9 * a * b for side, a, b in zip(sides, widths, widths[1:]))
    stem += 2 * patches * widths[-1] * c.width
  length = patches + (c.pool == "cls")
  return stem + _transformer(c, length) + (_attention_pool(c, length) if c.pool == "map" else 0)


def text_flops(c: TextConfig) -> int:
  """Forward FLOPs of the text tower for one text of max_length tokens, padding counted."""
  return _transformer(c, c.max_length) + (_attention_pool(c, c.max_length) if c.pool == "map" else 0)


def two_tower_flops(c: TwoTowerConfig, *, batch_size: int, train: bool = True) -> int:
  """FLOPs per example (an image and its text) in a batch of `batch_size`; one training step, or one forward pass."""
  projections = 2 * c.embed_dim * (c.image.pooled_width + c.text.width)
  forward = image_flops(c.image) + text_flops(c.text) + projections + 2 * batch_size * c.embed_dim
  return 3 * forward if train else forward
