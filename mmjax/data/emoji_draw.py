"""Images of emoji: one 72x72 RGBA PNG per emoji and artist, from image packages on PyPI."""

import io
from html import escape

from mmjax.data.emoji_text import Emoji, package_path, vendor_files
from mmjax.data.errors import unknown

SIZE = 72
VENDORS = ("twemoji", "openmoji", "noto")

# Noto's glyphs are 1.245 em wide and reach 0.25 em below the baseline. At font size 100 they fill a box of 128.
_NOTO_SVG = (
  f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}" viewBox="0 0 128 128">'
  '<text x="64" y="104" font-size="100" text-anchor="middle" font-family="Noto Color Emoji">{}</text></svg>'
)


def draw(emoji: Emoji, vendor: str) -> bytes:
  """Draw a vendor's image of an emoji, as an encoded 72x72 RGBA PNG.

  Raises:
    DataError: the vendor is unknown, or its package is not installed.
  """
  if vendor == "twemoji":
    return _png(vendor_files()["twemoji"][emoji.key].read_bytes())
  if vendor == "openmoji":
    return _render(svg_path=str(vendor_files()["openmoji"][emoji.key]), width=SIZE, height=SIZE)
  if vendor == "noto":
    # Pillow cannot draw COLRv1 fonts, but resvg can.
    font = package_path("dynamic_font") / "assets" / "fonts" / "NotoColorEmoji-Regular.ttf"
    return _render(svg_string=_NOTO_SVG.format(escape(emoji.text)), font_files=[str(font)])
  raise unknown("emoji vendor", vendor, VENDORS)


def _render(**arguments) -> bytes:
  package_path("resvg_py")
  import resvg_py

  return resvg_py.svg_to_bytes(skip_system_fonts=True, **arguments)


def _png(encoded: bytes) -> bytes:
  """Convert a PNG to RGBA. Twemoji's files have palettes."""
  from PIL import Image  # here, because the command line needs VENDORS and no image library

  buffer = io.BytesIO()
  Image.open(io.BytesIO(encoded)).convert("RGBA").save(buffer, format="PNG")
  return buffer.getvalue()
