"""Model FLOPs: the matrix products of a model's definition, whatever an implementation saves or recomputes.

image = stem + depth block(t, w, h) + pool + 2 w e    t = (image_size / patch_size)^2, and one class token
text  = depth block(l, w, h) + pool + 2 w e           block: see mmjax.nn.flops
train = 3 (image + text + 2 batch e)                  forward, and twice that backward; the logits per example
"""

from mmjax.models.two_tower import TwoTowerConfig


def two_tower_flops(c: TwoTowerConfig, *, batch_size: int, train: bool = True) -> int:
  """FLOPs per example (an image and its text) in a batch of `batch_size`; one training step, or one forward pass."""
  widths = (c.image.pooled_width, c.image_projection), (c.text.pooled_width, c.text_projection)
  projections = sum(2 * c.embed_dim * width for width, kind in widths if kind != "none")
  forward = c.image.flops() + c.text.flops() + projections + 2 * batch_size * c.embed_dim
  return 3 * forward if train else forward
