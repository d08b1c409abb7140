"""Checks of video files by their bytes, before a decoder sees them: the format, and whether the file is complete.

FFmpeg and Pillow read a file that was cut off as a shorter clip.
"""

from mmjax.data.errors import DataError

CONTAINERS = ("MP4", "MATROSKA")
ANIMATIONS = ("GIF", "WEBP")
FORMATS = ("MP4", "WebM", "MKV", "GIF", "animated WebP")
EXTENSIONS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".gif", ".webp")
"""Extensions of the files that are read. The content of a file says what it is, and not its extension."""

_IMAGES = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of images, and of sequences of them, in the container of MP4."""
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # elements of Matroska (RFC 9559, section 5.1)


def video_format(data: bytes) -> str | None:
  """Tell the format of a video file by its first bytes. None: no format that is read."""
  if data[4:8] == b"ftyp":
    return None if data[8:12] in _IMAGES else "MP4"
  if data[:4] == _EBML:
    return "MATROSKA"
  if data[:6] in (b"GIF87a", b"GIF89a"):
    return "GIF"
  return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def check_complete(data: bytes, form: str, record: str) -> None:
  """Check that the bytes are as many as the header says.

  Args:
    data: the file.
    form: its format.
    record: name of the record, for the error.
  Raises: DataError: the file is truncated, or its structure is damaged.
  """
  {"MP4": _check_mp4, "MATROSKA": _check_matroska, "GIF": gif_durations, "WEBP": webp_durations}[form](data, record)


def _check_mp4(data: bytes, record: str) -> None:
  place, names = 0, set[bytes]()
  while place < len(data):
    size, header = int.from_bytes(data[place : place + 4], "big"), 8
    if size == 1:
      size, header = int.from_bytes(data[place + 8 : place + 16], "big"), 16
    elif size == 0:  # up to the end of the file
      size = len(data) - place
    if size < header or place + size > len(data):
      raise truncated(record, f"a part of it claims {size} bytes, and there are {len(data) - place}")
    name = data[place + 4 : place + 8]
    if name in names and name in (b"ftyp", b"moov"):
      raise joined(record, place)
    names.add(name)
    place += size
  if b"moov" not in names:
    raise truncated(record, "it has no index of its frames (moov)")


def _check_matroska(data: bytes, record: str) -> None:
  length, place = _vint(data, 4)
  body = place + (length or 0)
  if data[body : body + 4] != _SEGMENT:
    raise truncated(record, "it has no content after its header")
  length, place = _vint(data, body + 4)
  if length is not None and place + length > len(data):
    raise truncated(record, f"its header claims {length} bytes, and there are {len(data) - place}")
  if length is not None and data[place + length : place + length + 4] == _SEGMENT:
    raise joined(record, place + length)
  second = body
  while (second := data.find(_EBML, second + 1)) >= 0:
    if any(kind in data[second : second + 64] for kind in (b"webm", b"matroska")):
      raise joined(record, second)


def _vint(data: bytes, place: int) -> tuple[int | None, int]:
  """(value, place after it) of a number of variable length (RFC 8794, section 4). None: unknown (a live stream)."""
  first = data[place] if place < len(data) else 0
  length = 9 - first.bit_length()
  value = int.from_bytes(data[place : place + length], "big") & ((1 << 7 * length) - 1)
  return (None if value == (1 << 7 * length) - 1 else value), place + length


def gif_durations(data: bytes, record: str) -> list[int]:
  """Durations of the frames of a GIF, in milliseconds, read without decoding them.

  Args:
    data: the file.
    record: name of the record, for the error.
  Raises: DataError: the file is truncated, or its structure is damaged.
  """
  found: list[int] = []
  place, delay = 13 + _table(data, 10), 0
  while place < len(data):
    kind = data[place]
    if kind == 0x3B:  # trailer
      second = data.find(b"GIF8", place)
      if second >= 0:
        raise joined(record, second)
      return found
    if kind == 0x21:  # extension, of which a graphic control extension has the delay of the next image
      if data[place + 1 : place + 3] == b"\xf9\x04":
        delay = 10 * int.from_bytes(data[place + 4 : place + 6], "little")
      place = _after_blocks(data, place + 2)
    elif kind == 0x2C:  # image
      found.append(delay)
      place, delay = _after_blocks(data, place + 11 + _table(data, place + 9)), 0
    else:
      raise DataError(f"{record}: the GIF is damaged at byte {place}. Replace it or remove it.")
  raise truncated(record, "its end is missing")


def _table(data: bytes, place: int) -> int:
  """Bytes of the table of colours that the flags at a place announce."""
  flags = data[place] if place < len(data) else 0
  return 3 * 2 ** (1 + (flags & 7)) if flags & 0x80 else 0


def _after_blocks(data: bytes, place: int) -> int:
  """The place after a sequence of blocks, each with its length before it. The last one has length 0."""
  while place < len(data) and data[place]:
    place += 1 + data[place]
  return place + 1


def webp_durations(data: bytes, record: str) -> list[int]:
  """Durations of the frames of an animated WebP, in milliseconds. A still image has one frame.

  Args:
    data: the file.
    record: name of the record, for the error.
  Raises: DataError: the file is truncated.
  """
  found: list[int] = []
  end, place = 8 + int.from_bytes(data[4:8], "little"), 12
  if end > len(data):
    raise truncated(record, f"its header claims {end} bytes, and there are {len(data)}")
  while place + 8 <= end:
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    if place + 8 + size > len(data):
      raise truncated(record, f"a part of it claims {size} bytes, and there are {len(data) - place - 8}")
    if data[place : place + 4] == b"ANMF":
      found.append(int.from_bytes(data[place + 20 : place + 23], "little"))
    place += 8 + size + size % 2
  second = data.find(b"WEBP", end)
  if second >= 0:
    raise joined(record, second - 8)
  return found or [0]


def joined(record: str, place: int) -> DataError:
  """The error for a file behind which another one stands. A decoder would leave it out, or mix the frames of both."""
  return DataError(
    f"{record}: a second video begins at byte {place}: files were joined. Separate them, or join them with ffmpeg."
  )


def truncated(record: str, why: str) -> DataError:
  """The error for a file that was cut off."""
  return DataError(f"{record}: the video is truncated: {why}. Restore it or remove it.")
