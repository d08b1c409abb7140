"""Names of the checkpoint formats."""

from typing import Literal, get_args

from mmjax.interop.errors import InteropError

Format = Literal["transformers", "siglip2", "open_clip", "openai", "big_vision", "mmjax"]
FORMATS: tuple[Format, ...] = get_args(Format)


def check_format(name: str) -> None:
  """Raise InteropError if `name` is not a format. The message lists the formats."""
  if name not in FORMATS:
    raise InteropError(f"unknown format {name!r}; formats are {', '.join(FORMATS)}")
