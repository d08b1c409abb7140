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
  """Fields of a transformer's configuration by size: `ViTConfig(**vit_size("B"), patch_size=32)`.

  Raises: ValueError where there is no such size.
  """
  if name not in _SIZES:
    raise ValueError(f"no size {name!r}; sizes are {', '.join(_SIZES)}")
  return dict(zip(("width", "depth", "num_heads", "mlp_dim"), _SIZES[name]))
