"""Frames of MP3 files (MPEG audio, layer III), whose header may not say how many there are.

Without such a header, libsndfile estimates the length from the first frame. Of a file with a variable bit rate it then
reads a part only, without a word.
"""

from typing import NamedTuple

from mmjax.data.sound.headers import truncated

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}
"""Samples per second by version: MPEG 1, 2, 2.5."""
_KBITS = {
  True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
  False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits per second by index from 1 on: of MPEG 1, and of the others."""
_MONO = 3
_TAGS = (b"Xing", b"Info", b"VBRI")


class Frame(NamedTuple):
  """A frame: its size in bytes, and the place of the data after its side information."""

  size: int
  body: int


def with_length(data: bytes, record: str) -> bytes:
  """Return an MP3 file with a header that says how many frames it has: the same one if it has such a header.

  Args:
    data: the file.
    record: name of the record, for the error.
  Raises: DataError: the file has no such header, and its last frame is cut off. A cut between frames is not noticed.
  """
  start = _after_id3(data)
  first = _frame(data, start)
  if (
    first is None
    or data[start + first.body : start + first.body + 4] in _TAGS
    or data[start + 36 : start + 40] in _TAGS
  ):
    return data
  count, place = 0, start
  while (frame := _frame(data, place)) is not None:
    if place + frame.size > len(data):
      raise truncated(record, f"its last frame has {len(data) - place} of {frame.size} bytes")
    count, place = count + 1, place + frame.size
  return data[:start] + _tag(data[start : start + 4], count) + data[start:]


def _after_id3(data: bytes) -> int:
  """Place after the ID3 tag that a file may begin with."""
  if data[:3] != b"ID3" or len(data) < 10:
    return 0
  size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
  return 10 + size + (10 if data[5] & 0x10 else 0)


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
  return Frame(size, 4 + (0 if head[1] & 1 else 2) + _side(version, head[3]))


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
