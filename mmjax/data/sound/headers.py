"""Checks of sound files by their bytes, before a decoder sees them: the format, and whether the file is complete.

libsndfile reads a WAV or Ogg file that was cut off as a shorter clip, without a word.
"""

from mmjax.data.errors import DataError

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
"""Extensions of the files that are read. The content of a file says what it is, and not its extension."""

_LAST_PAGE = 4
"""Bit of the header of an Ogg page: the last one of its stream (RFC 3533, section 6)."""


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


def check_complete(data: bytes, form: str, record: str) -> None:
  """Check that the bytes are as many as the header says. FLAC and MP3 are checked by the decoder.

  Args:
    data: the file.
    form: its format.
    record: name of the record, for the error.
  Raises: DataError: the file is truncated, or its header does not say how long it is.
  """
  if form == "WAV":
    _check_wav(data, record)
  elif form == "OGG":
    _check_ogg(data, record)


def _check_wav(data: bytes, record: str) -> None:
  order = "little" if data[:4] == b"RIFF" else "big"
  place = 12
  while place + 8 <= len(data):
    name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], order)  # type: ignore[arg-type]
    if name == b"data":
      there = len(data) - place - 8
      if size == 0xFFFFFFFF:
        raise DataError(
          f"{record}: the WAV header does not say how long the sound is (it was written to a pipe). Write it to a file."
        )
      if size > there:
        raise truncated(record, f"its header claims {size} bytes of sound, and there are {there}")
      return
    place += 8 + size + size % 2
  raise truncated(record, "it has no sound after its header")


def _check_ogg(data: bytes, record: str) -> None:
  place = data.rfind(b"OggS")
  page = data[place : place + 27]
  length = 27 + (page[26] if len(page) == 27 else 0)
  body = sum(data[place + 27 : place + length])
  if len(page) < 27 or place + length + body > len(data) or not page[5] & _LAST_PAGE:
    raise truncated(record, "its last page is missing")


def truncated(record: str, why: str) -> DataError:
  """The error for a file that was cut off."""
  return DataError(f"{record}: the sound is truncated: {why}. Restore it or remove it.")
