"""Drawing of a clip for a report: some of its frames side by side."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from mmjax.data.places import spread

_SHOWN = 6
_HEIGHT = 72


def strip(frames: Sequence[Image.Image], seconds: float) -> str:
  """HTML with up to six frames of a clip side by side, on white.

  Args:
    frames: frames, in RGB or RGBA.
    seconds: duration of the clip, for the text of the image.
  """
  small = [_small(frames[place]) for place in spread(len(frames), _SHOWN)]
  sheet = Image.new("RGB", (sum(each.width for each in small) + 2 * (len(small) - 1), _HEIGHT), "white")
  left = 0
  for each in small:
    sheet.paste(each, (left, 0))
    left += each.width + 2
  data = io.BytesIO()
  sheet.save(data, "WEBP", quality=70)
  source = base64.b64encode(data.getvalue()).decode()
  alt = f"{len(small)} frames of {seconds:.2f} s"
  return f'<img style="width: 100%; height: auto" alt="{alt}" src="data:image/webp;base64,{source}">'


def _small(frame: Image.Image) -> Image.Image:
  frame = frame.convert("RGBA").resize((max(1, round(frame.width * _HEIGHT / frame.height)), _HEIGHT))
  canvas = Image.new("RGBA", frame.size, "white")
  canvas.alpha_composite(frame)
  return canvas.convert("RGB")
