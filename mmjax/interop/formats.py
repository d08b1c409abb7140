"""Names of the formats that weights are written in."""

from typing import Literal, get_args

from mmjax.interop.errors import InteropError

Format = Literal["transformers", "siglip2", "open_clip", "openai", "big_vision", "mmjax"]
FORMATS: tuple[Format, ...] = get_args(Format)


def check_format(name: str) -> None:
  """Raises InteropError, which lists the formats, if there is no format of this name."""
  if name not in FORMATS:
    raise InteropError(f"unknown format {name!r}; formats are {', '.join(FORMATS)}")
