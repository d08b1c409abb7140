"""Frames of MP3 files (MPEG audio, layer III), whose header may not say how many there are.

Without such a header, libsndfile estimates the length from the first frame. Of a file with a variable bit rate it then
reads a part only, without a word.
"""

import re
from typing import NamedTuple

from mmjax.data.errors import DataError
from mmjax.data.sound.headers import after_id3, truncated

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}
"""Samples per second by version: MPEG 1, 2, 2.5."""
_KBITS = {
  True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
  False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits per second by index from 1 on: of MPEG 1, and of the others."""
_MONO = 3
_TAGS = (b"Xing", b"Info", b"VBRI")


_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
_REMEDY = "Separate them, or write the file again (ffmpeg -i IN.mp3 OUT.flac)."


class Frame(NamedTuple):
  """A frame.

  Attributes:
    size: bytes of the frame.
    body: place of the data after its side information.
    kind: version, layer and rate, and if it is mono. A decoder cannot change them in the middle.
  """

  size: int
  body: int
  kind: tuple[int, int, bool]


def with_length(data: bytes, record: str) -> bytes:
  """Return an MP3 file with a header that says how many frames it has: the same one if it has such a header.

  Args:
    data: the file.
    record: name of the record, for the error.
  Raises:
    DataError: the file has no such header, and its last frame is cut off; or there are frames that would not be read:
      after those that the header counts, or after bytes that are no frame. A cut between frames is not noticed.
  """
  start = after_id3(data)
  if _frame(data, start) is None:  # the tag is longer than it says, which libsndfile does not accept
    data, start = data[_next(data, start) :] or data, 0
  first = _frame(data, start)
  if first is None:
    return data
  claimed = _claimed(data, start, first)
  count = _walk(data, start, first, record, whole=claimed is None)
  if claimed is None:
    return data[:start] + _tag(data[start : start + 4], count) + data[start:]
  if claimed and count - 1 > claimed + 1:  # some writers do not count the last frame
    raise DataError(
      f"{record}: its header counts {claimed} frames, and there are {count - 1}: files were joined, or the header is "
      f"wrong. {_REMEDY}"
    )
  return data


def _claimed(data: bytes, start: int, first: Frame) -> int | None:
  """Number of frames that the header in the first frame counts. 0: it does not say. None: there is no header."""
  for place in (start + first.body, start + 36):
    tag = data[place : place + 4]
    if tag == b"VBRI":
      return int.from_bytes(data[place + 14 : place + 18], "big")
    if tag in _TAGS:
      counts = int.from_bytes(data[place + 4 : place + 8], "big") & 1
      return int.from_bytes(data[place + 8 : place + 12], "big") if counts else 0
  return None


def _walk(data: bytes, start: int, first: Frame, record: str, *, whole: bool) -> int:
  """Count the frames, and check that none is behind bytes that are no frame.

  Args:
    data: the file.
    start: place of the first frame.
    first: the first frame.
    record: name of the record, for the error.
    whole: True if the last frame must be complete. Otherwise the decoder notices it.
  Returns: the number of frames.
  """
  count, place = 0, start
  while (frame := _frame(data, place)) is not None:
    if frame.kind != first.kind:
      raise DataError(f"{record}: the rate or the channels change at byte {place}: files were joined. {_REMEDY}")
    if place + frame.size > len(data):
      if whole:
        raise truncated(record, f"its last frame has {len(data) - place} of {frame.size} bytes")
      break
    count, place = count + 1, place + frame.size
  following = _next(data, place, first.kind)
  if following < len(data):
    raise DataError(
      f"{record}: the frames end at byte {place} and go on at byte {following}: files were joined, or it is damaged. "
      f"{_REMEDY}"
    )
  return count


def _next(data: bytes, place: int, kind: tuple[int, int, bool] | None = None) -> int:
  """Place of the next frame that another one follows. The end of the file if there is none.

  Args:
    data: the file.
    place: where the search begins.
    kind: the kind that the frame has. None: any.
  """
  for match in _SYNC.finditer(data, place):
    frame = _frame(data, match.start())
    if frame is not None and kind in (None, frame.kind):
      second = _frame(data, match.start() + frame.size)
      if second is not None and second.kind == frame.kind:
        return match.start()
  return len(data)


def _frame(data: bytes, place: int) -> Frame | None:
  """The frame at a place. None: there is none, or one without a bit rate ("free format")."""
  head = data[place : place + 4]
  if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
    return None
  version, kbits, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
  if version not in _RATES or not 1 <= kbits <= 14 or rate == 3:
    return None
  first = version == 3
  size = (144_000 if first else 72_000) * _KBITS[first][kbits - 1] // _RATES[version][rate] + (head[2] >> 1 & 1)
  kind = (version, rate, head[3] >> 6 == _MONO)
  return Frame(size, 4 + (0 if head[1] & 1 else 2) + _side(version, head[3]), kind)


def _side(version: int, modes: int) -> int:
  """Bytes of the side information."""
  mono = modes >> 6 == _MONO
  return (17 if mono else 32) if version == 3 else (9 if mono else 17)


def _tag(head: bytes, frames: int) -> bytes:
  """A frame with the number of the other frames (Xing's), for a file whose frames begin with `head`."""
  head = bytes((head[0], head[1] | 1, 0xE0 | head[2] & 0x0C, head[3]))  # no checksum, the highest bit rate, no padding
  frame = _frame(head, 0)
  assert frame is not None
  body = b"Xing" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
  return (head + bytes(frame.body - 4) + body).ljust(frame.size, b"\0")
