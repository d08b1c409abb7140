"""Named sizes."""

import pytest

from mmjax.encoders import ViTConfig, vit_size


def test_a_size_fills_a_configuration():
  config = ViTConfig(**vit_size("So400m"), patch_size=14)
  assert (config.width, config.depth, config.num_heads, config.hidden) == (1152, 27, 16, 4304)


def test_an_unknown_size_names_the_known_ones():
  with pytest.raises(ValueError, match="no size 'XL'; sizes are Ti, S, B, L"):
    vit_size("XL")
