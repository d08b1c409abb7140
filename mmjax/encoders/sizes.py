"""Named transformer sizes (Zhai et al. 2022, table 2; So400m: Alabdulmohsin et al. 2023)."""

from typing import Any

_SIZES = {  # name: width, depth, num_heads, mlp_dim
  "Ti": (192, 12, 3, 768),
  "S": (384, 12, 6, 1536),
  "B": (768, 12, 12, 3072),
  "L": (1024, 24, 16, 4096),
  "So400m": (1152, 27, 16, 4304),
  "H": (1280, 32, 16, 5120),
  "g": (1408, 40, 16, 6144),
}


def vit_size(name: str) -> dict[str, Any]:
  """Width, depth, heads and MLP width of a named size, as fields of a transformer's configuration.

  Raises:
    ValueError: there is no size of this name.

  Example:
    >>> from mmjax.encoders import ViTConfig, vit_size
    >>> ViTConfig(**vit_size("B"), patch_size=32).width
    768
  """
  if name not in _SIZES:
    raise ValueError(f"no size {name!r}; sizes are {', '.join(_SIZES)}")
  return dict(zip(("width", "depth", "num_heads", "mlp_dim"), _SIZES[name]))
