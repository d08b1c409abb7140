"""Images with something drawn over them, as data URIs."""

import base64
import io

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from mmjax.data.images.native import from_row
from mmjax.report.figures import sequential

SIDE = 96
"""Pixels of a tile."""
_MARK = (213, 94, 0)  # of Okabe and Ito's colours, which every kind of sight tells apart
_SHADES = np.array([[int(sequential(step / 255)[i : i + 2], 16) for i in (1, 3, 5)] for step in range(256)], np.float32)


def seen_pixels(
  picture: Float[np.ndarray, "h w 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> UInt8[np.ndarray, "h w 3"]:
  """Colours of a normalised image, or of a row of patches, as the model saw it."""
  if picture.ndim == 2:
    picture = from_row(picture)
  return np.clip((picture * np.array(std) + np.array(mean)) * 255, 0, 255).round().astype(np.uint8)


def tile(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
  """A data URI; small images are enlarged pixel by pixel."""
  buffer = io.BytesIO()
  _sized(pixels).save(buffer, format="WEBP", lossless=True)
  return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def heated(
  pixels: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "side side 3"]:
  """The heat map, 0 (dark blue) to 1 (yellow), enlarged without smoothing and darker where the image is dark."""
  picture = np.asarray(_sized(pixels), np.float32)
  grey = picture @ np.array([0.299, 0.587, 0.114], np.float32)
  shades = _SHADES[np.clip(heat * 255, 0, 255).round().astype(int)]
  large = Image.fromarray(shades.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
  return (np.asarray(large, np.float32) * (0.45 + 0.55 * grey[..., None] / 255)).round().astype(np.uint8)


def marked(pixels: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
  """The image pale where the mask is not, and framed in orange where it is."""
  inner = mask.copy()
  for axis in (0, 1):
    for shift in (-1, 1):
      inner &= np.roll(mask, shift, axis)
  shown = np.where(mask[..., None], pixels, (0.25 * pixels + 0.75 * 255)).astype(np.uint8)
  return np.where((mask & ~inner)[..., None], np.array(_MARK, np.uint8), shown)


def _sized(pixels: np.ndarray) -> Image.Image:
  smaller = max(pixels.shape[:2]) > SIDE
  kind = Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST
  return Image.fromarray(pixels).resize((SIDE, SIDE), kind)
