"""Checks of sound files by their bytes, before a decoder sees them: the format, and whether the file is complete.

libsndfile reads a WAV or Ogg file that was cut off as a shorter clip, without a word. It leaves out what stands after
the sound that the header counts.
"""

from typing import Literal

from mmjax.data.errors import DataError

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
"""Extensions of the files that are read. The content of a file says what it is, and not its extension."""

_FIRST_PAGE, _LAST_PAGE = 2, 4
"""Bits of the header of an Ogg page: the first one of its stream, and the last one (RFC 3533, section 6)."""
_TAGS = (b"TAG", b"APETAGEX", b"ID3")
_PLAIN = (1, 3)  # formats of WAV: integers, and floating numbers


def sound_format(data: bytes) -> str | None:
  """Tell the format of a sound file by its first bytes. None: no format that is read."""
  if data[:4] in (b"RIFF", b"RIFX") and data[8:12] == b"WAVE":
    return "WAV"
  if data[:4] == b"fLaC":
    return "FLAC"
  if data[:4] == b"OggS":
    return "OGG"
  # MPEG audio: 11 bits that are 1, a version and layer III; or an ID3 tag before it.
  if data[:3] == b"ID3" or (len(data) > 3 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
    return "MP3"
  return None


def without_id3(data: bytes) -> bytes:
  """Remove an ID3 tag before a file of another format than MP3, whose decoder does not expect one."""
  if data[:3] != b"ID3":
    return data
  rest = data[after_id3(data) :]
  return rest if sound_format(rest) in ("WAV", "FLAC", "OGG") else data


def after_id3(data: bytes) -> int:
  """Place after the ID3 tag that a file may begin with."""
  if data[:3] != b"ID3" or len(data) < 10:
    return 0
  size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
  return 10 + size + (10 if data[5] & 0x10 else 0)


def check_complete(data: bytes, form: str, record: str) -> None:
  """Check that the bytes are as many as the header says. FLAC and MP3 are checked by their own modules.

  Args:
    data: the file.
    form: its format.
    record: name of the record, for the error.
  Raises: DataError: the file is truncated, its header does not say how long it is, or there is more sound in it.
  """
  if form == "WAV":
    _check_wav(data, record)
  elif form == "OGG":
    _check_ogg(data, record)


def _check_wav(data: bytes, record: str) -> None:
  order: Literal["little", "big"] = "little" if data[:4] == b"RIFF" else "big"
  place = 12
  while place + 8 <= len(data):
    name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], order)
    if name == b"fmt ":
      _check_block(data[place + 8 : place + 24], order, record)
    if name == b"data":
      there = len(data) - place - 8
      if size == 0xFFFFFFFF or (size == 0 and there > 0):
        raise DataError(
          f"{record}: the WAV header does not say how long the sound is (it was written to a pipe). Write it to a file."
        )
      if size > there:
        raise truncated(record, f"its header claims {size} bytes of sound, and there are {there}")
      _check_rest(data, place + 8 + size, order, record)
      return
    place += 8 + size + size % 2
  raise truncated(record, "it has no sound after its header")


def _check_block(fields: bytes, order: Literal["little", "big"], record: str) -> None:
  """Check the bytes of a sample of all channels, which libsndfile believes more than the channels."""
  form, channels, block, bits = (int.from_bytes(fields[at : at + 2], order) for at in (0, 2, 12, 14))
  if form in _PLAIN and block != channels * ((bits + 7) // 8):
    raise DataError(
      f"{record}: its WAV header contradicts itself: {channels} channels of {bits} bits in {block} bytes. Replace it."
    )


def _check_rest(data: bytes, end: int, order: Literal["little", "big"], record: str) -> None:
  """Check that there is no sound after that which the header counts: only other parts of a WAV, tags or zeros."""
  for place in (end + end % 2, end):  # some writers leave out the byte that makes the size even
    while (name := data[place : place + 4]) and not name.startswith(_TAGS) and _is_name(name):
      place += 8 + int.from_bytes(data[place + 4 : place + 8], order)
      place += place % 2 and place < len(data)
    if data.startswith(_TAGS, place) or place == len(data) or not data[place:].strip(b"\0"):
      return
  raise DataError(
    f"{record}: after the sound that its header counts, {len(data) - end} bytes are no part of a WAV: the header is "
    "wrong, or files were joined. Write the file again, or remove these bytes."
  )


def _is_name(name: bytes) -> bool:
  return len(name) == 4 and name.isascii() and name.decode("ascii").isprintable() and name not in (b"data", b"RIFF")


def _check_ogg(data: bytes, record: str) -> None:
  place, flags, begun = 0, 0, False
  while data[place : place + 4] == b"OggS":
    segments = data[place + 26 : place + 27]
    length = 27 + (segments[0] if segments else 0)
    end = place + length + sum(data[place + 27 : place + length])
    if not segments or end > len(data) or place + length > len(data):
      raise truncated(record, "its last page is missing")
    flags = data[place + 5]
    if flags & _FIRST_PAGE and begun:
      raise DataError(
        f"{record}: a second stream begins at byte {place}: files were joined. Separate them, or convert them to one."
      )
    begun, place = begun or not flags & _FIRST_PAGE, end
  if data.find(b"OggS", place) > 0:
    raise DataError(f"{record}: the Ogg file is damaged at byte {place}. Replace it or remove it.")
  if not flags & _LAST_PAGE:
    raise truncated(record, "its last page is missing")


def truncated(record: str, why: str) -> DataError:
  """The error for a file that was cut off."""
  return DataError(f"{record}: the sound is truncated: {why}. Restore it or remove it.")
