"""Length of FLAC files, which their header may not say, or say wrongly (RFC 9639).

libsndfile believes the header: it reads no sample after those that it counts, and nothing of a second file.
"""

from mmjax.data.errors import DataError

_BEGINS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
"""The marker, and the header of the first block (section 8.2), which is the last one or not."""
_SYNC = (b"\xff\xf8", b"\xff\xf9")
"""First bytes of a frame: blocks of a fixed length, or of variable length."""
_TOTAL = 0xF_FFFF_FFFF
_LARGEST, _TRIES = 2**21, 10_000  # bytes of the largest frame, and places of it that may look like the header of one


def with_length(data: bytes, record: str) -> bytes:
  """Return a FLAC file whose header counts its samples: the same one, if its header does.

  A file that was written to a pipe does not say how many it has. The last frame says which one it is.

  Args:
    data: the file.
    record: name of the record, for the error.
  Raises: DataError: there are samples after those that the header counts, or a second file after the first.
  """
  second = max(data.find(begin, 8) for begin in _BEGINS)
  if second > 0:
    raise DataError(
      f"{record}: a second FLAC file begins at byte {second}: files were joined. Separate them, or convert them to one."
    )
  if data[:8] not in _BEGINS or len(data) < 42:
    return data  # the decoder names what is wrong
  head = int.from_bytes(data[18:26], "big")
  claimed, found = head & _TOTAL, _end(data)
  if found is None:
    if not claimed:
      raise DataError(
        f"{record}: its header does not say how long the sound is, and its last frame is damaged. Replace it."
      )
    return data
  if not claimed:
    return data[:18] + (head | found).to_bytes(8, "big") + data[26:]
  if found > claimed:
    raise DataError(
      f"{record}: its header claims {claimed} samples, and its last frame ends at sample {found}: the header is wrong. "
      "Write the file again, for example with flac -d -F and flac."
    )
  return data


def _end(data: bytes) -> int | None:
  """Number of the sample after the last frame. None: there is no frame at the end of the file."""
  first = max(42, len(data) - _LARGEST)
  places = [data.rfind(sync, first) for sync in _SYNC]
  for _ in range(_TRIES):
    place = max(places)
    if place < 0:
      return None
    end = _frame_end(data, place)
    if end is not None:
      return end
    kind = places.index(place)
    places[kind] = data.rfind(_SYNC[kind], first, place + 1)
  return None


def _frame_end(data: bytes, place: int) -> int | None:
  """Number of the sample after the frame at a place (section 9.1). None: the bytes are not the header of a frame."""
  head = data[place : place + 16]
  if len(head) < 16 or head[3] & 1 or head[3] >> 4 > 10:
    return None
  size, rate = head[2] >> 4, head[2] & 15
  number, after = _number(head)
  if number is None or not size or rate == 15:
    return None
  more = {6: 1, 7: 2}.get(size, 0)
  block = int.from_bytes(head[after : after + more], "big") + 1 if more else _block(size)
  after += more + {12: 1, 13: 2, 14: 2}.get(rate, 0)
  if after >= len(head) or _crc(head[:after]) != head[after]:
    return None
  return number + block if head[1] & 1 else number * int.from_bytes(data[8:10], "big") + block


def _block(code: int) -> int:
  """Samples of a block by its code."""
  if code == 1:
    return 192
  return 576 << (code - 2) if code < 6 else 256 << (code - 8)


def _number(head: bytes) -> tuple[int | None, int]:
  """(Number of the frame or of its first sample, place after it): up to 36 bits, coded as a letter of UTF-8."""
  first = head[4]
  more = 0 if first < 0x80 else 7 - (first ^ 0xFF).bit_length()
  rest = head[5 : 5 + more]
  if first >= 0x80 and (not 1 <= more <= 6 or any(byte >> 6 != 2 for byte in rest)):
    return None, 0
  value = first if not more else first & ((1 << (6 - more)) - 1)
  for byte in rest:
    value = value << 6 | byte & 0x3F
  return value, 5 + more


def _crc(data: bytes) -> int:
  """Checksum of a header: polynomial x^8 + x^2 + x + 1."""
  value = 0
  for byte in data:
    value ^= byte
    for _ in range(8):
      value = (value << 1 ^ (0x107 if value & 0x80 else 0)) & 0x1FF
  return value & 0xFF
