"""Limits of a video that is read, and the errors for what exceeds them."""

import dataclasses
from typing import Literal

from mmjax.data.errors import DataError

MAX_BYTES = 256 * 2**20
"""Largest file that is read from a path."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits of a video. They are checked before frames are decoded.

  Attributes:
    max_pixels: largest number of pixels of a frame. A decoder takes about 8 frames of 1.5 to 4 bytes a pixel.
    max_seconds: longest clip.
    max_frames: largest number of frames of a clip.
    longer: treatment of a longer clip. "crop" reads its beginning, "refuse" is an error.
  """

  max_pixels: int = 9_000_000
  max_seconds: float = 600.0
  max_frames: int = 20_000
  longer: Literal["crop", "refuse"] = "crop"

  def check_size(self, width: int, height: int, record: str) -> None:
    """Raise DataError if a frame has no pixels, or more than the limit."""
    if min(width, height) < 1:
      raise DataError(f"{record}: its header claims frames of {width} x {height} pixels. Replace it or remove it.")
    if width * height > self.max_pixels:
      raise DataError(
        f"{record}: refused, its header claims {width} x {height} pixels and the limit is {self.max_pixels}. Shrink "
        "it, or raise max_pixels of the column Video."
      )

  def too_long(self, record: str, said: str) -> DataError:
    """The error for a clip that is longer than the limits, with longer="refuse"."""
    return DataError(
      f"{record}: refused, it has {said}, and the limits are {self.max_seconds:.6g} s and {self.max_frames} frames. "
      'Cut it, set longer="crop" to use its beginning, or raise max_seconds and max_frames.'
    )
