"""Model FLOPs: the matmuls a model's mathematics asks for, whatever an implementation saves or repeats.

block(t, w, h) = 2 t (4 w^2 + 2 w h) + 4 t^2 w        query, key, value, out; the MLP; query key^T and weights value
image = stem + depth block(t, w, h) + pool + 2 w e    t = (image_size / patch_size)^2, and one class token
text  = depth block(l, w, h) + pool + 2 w e
train = 3 (image + text + 2 batch e)                  forward, and twice that backward; the logits per example
"""

from mmjax.encoders.resnet import EXPANSION, ResNetConfig
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


def _query_pool(c: ViTConfig, length: int) -> int:
  """Keys and values of every token; queries and outputs of every learned query."""
  width, queries = c.pool_width, c.pool_queries
  return 4 * length * c.width * width + 4 * queries * width**2 + 4 * queries * length * width


def _pool(c: TransformerConfig, pool: str, length: int, tanh: bool) -> int:
  return (_attention_pool(c, length) if pool == "map" else 0) + (2 * c.width**2 if tanh else 0)


def image_flops(c: ViTConfig | ResNetConfig) -> int:
  """Forward FLOPs of the image tower for one image, patch dropout not counted off."""
  if isinstance(c, ResNetConfig):
    return resnet_flops(c)
  patches = c.grid**2
  if c.stem == "patch":
    stem = 2 * patches * 3 * c.patch_size**2 * c.width
  else:
    widths = [3, *stem_widths(c.width, c.patch_size)]
    sides = [c.image_size >> (i + 1) for i in range(len(widths) - 1)]
    stem = sum(2 * side**2 * 9 * a * b for side, a, b in zip(sides, widths, widths[1:]))
    stem += 2 * patches * widths[-1] * c.width
  length = patches + c.has_class_token
  if c.pool == "queries":
    return stem + _transformer(c, length) + _query_pool(c, length) + (2 * c.pool_width**2 if c.tanh_pool else 0)
  return stem + _transformer(c, length) + _pool(c, c.pool, length, c.tanh_pool)


def resnet_flops(c: ResNetConfig) -> int:
  """Forward FLOPs of CLIP's residual network for one image: every convolution, and the attention that pools."""
  side, half = c.image_size // 2, c.width // 2
  total = 2 * side**2 * 9 * (3 * half + half**2 + half * c.width)
  side, width = side // 2, c.width
  for stage, blocks in enumerate(c.layers):
    middle, out = c.width * 2**stage, c.width * 2**stage * EXPANSION
    for block in range(blocks):
      smaller = side // 2 if stage and not block else side
      total += 2 * side**2 * (width * middle + 9 * middle**2) + 2 * smaller**2 * middle * out
      total += 2 * smaller**2 * width * out if not block else 0
      side, width = smaller, out
  length = c.grid**2 + 1
  return total + 4 * length * width**2 + 4 * length * width + 2 * width * (width + c.output_dim)


def text_flops(c: TextConfig) -> int:
  """Forward FLOPs of the text tower for one text of max_length tokens, padding counted."""
  return _transformer(c, c.max_length) + _pool(c, c.pool, c.max_length, c.tanh_pool)


def two_tower_flops(c: TwoTowerConfig, *, batch_size: int, train: bool = True) -> int:
  """FLOPs per example (an image and its text) in a batch of `batch_size`; one training step, or one forward pass."""
  widths = (c.image.pooled_width, c.image_projection), (c.text.width, c.text_projection)
  projections = sum(2 * c.embed_dim * width for width, kind in widths if kind != "none")
  forward = image_flops(c.image) + text_flops(c.text) + projections + 2 * batch_size * c.embed_dim
  return 3 * forward if train else forward
