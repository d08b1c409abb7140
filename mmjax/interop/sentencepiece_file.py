"""Reader of a SentencePiece model (spiece.model, sentencepiece.bpe.model): its pieces and its map of characters.

The file is a Protocol Buffers message. Only the fields that a tokenizer is made from are read.
"""

import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

from mmjax.interop.errors import InteropError

_MAX_BYTES = 100_000_000
_UNIGRAM = 1


@dataclasses.dataclass(frozen=True)
class SentencePieceFile:
  """Content of a SentencePiece model.

  Attributes:
    pieces: (piece, score) by number.
    unigram: True if it is a unigram model; False for BPE and others.
    characters: map that normalises characters, in the form of the tokenizers library; empty if there is none.
  """

  pieces: list[tuple[str, float]]
  unigram: bool
  characters: bytes


def read_sentencepiece(path: Path) -> SentencePieceFile:
  """Read a SentencePiece model. Raises InteropError if the file is damaged or larger than 100 MB."""
  try:
    if path.stat().st_size > _MAX_BYTES:
      raise InteropError(f"{path} is larger than {_MAX_BYTES} bytes, which is too large for a vocabulary")
    kind: int | bytes
    pieces, kind, characters = list[tuple[str, float]](), _UNIGRAM, b""
    for number, value in _fields(path.read_bytes()):
      if number == 1:
        piece = dict(_fields(_bytes(value)))
        pieces.append((_bytes(piece[1]).decode("utf-8"), struct.unpack("<f", _bytes(piece.get(2, bytes(4))))[0]))
      elif number == 2:
        kind = dict(_fields(_bytes(value))).get(3, _UNIGRAM)
      elif number == 3:
        characters = _bytes(dict(_fields(_bytes(value))).get(2, b""))
  except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
    raise InteropError(f"{path} is not a SentencePiece model ({error!r}); download it again") from error
  if not pieces:
    raise InteropError(f"{path} is not a SentencePiece model: it has no pieces; download it again")
  return SentencePieceFile(pieces, kind == _UNIGRAM, characters)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
  """Fields of a message: (number, value). A value is an integer, or the bytes of a string, a message or a number."""
  value: int | bytes
  place = 0
  while place < len(data):
    key, place = _integer(data, place)
    match key & 7:
      case 0:
        value, place = _integer(data, place)
      case 1 | 2 | 5 as kind:
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
          size, place = _integer(data, place)
        if place + size > len(data):
          raise ValueError("it ends in the middle of a field")
        value, place = data[place : place + size], place + size
      case kind:
        raise ValueError(f"unknown wire type {kind}")
    yield key >> 3, value


def _integer(data: bytes, place: int) -> tuple[int, int]:
  """Integer of 7 bits a byte, the lowest first: (value, place after it)."""
  value = 0
  for shift in range(0, 70, 7):
    byte = data[place]
    place += 1
    value |= (byte & 127) << shift
    if byte < 128:
      return value, place
  raise ValueError("an integer has more than 10 bytes")


def _bytes(value: int | bytes) -> bytes:
  if isinstance(value, int):
    raise ValueError("an integer stands where bytes should be")
  return value
