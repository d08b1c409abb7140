"""Reader of ArrayRecord files. Each chunk is checked before the library reads it.

The file consists of Riegeli chunks in blocks of 64 KiB (https://github.com/google/riegeli/blob/master/doc). The last
block has the position of the footer, and the footer has the position of each chunk. The library decompresses any chunk,
so that a shard of 128 KB may take 1.5 GB of memory. Compressed chunks and large chunks are therefore refused here,
before the library reads them. Images need no further compression.
"""

import contextlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

MAX_FOOTER = 64 * 2**20
"""Largest size of the list of chunks in bytes, enough for millions of records."""
_BLOCK, _BLOCK_HEADER = 65_536, 24
_USABLE = _BLOCK - _BLOCK_HEADER
_CHUNK = struct.Struct("<5Q")  # hash, size of data, hash of data, kind + 256 * records, decoded size
_REMEDY = "write it with python -m mmjax.data shard, or with the options group_size:1,uncompressed"


class ArrayRecordFile:
  """One open file.

  Raises:
    OSError, RuntimeError, ValueError: the file cannot be opened, or is damaged. The library raises RuntimeError.
  """

  def __init__(self, path: Path):
    from array_record.python import array_record_module

    self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    self._reader: Any = None
    try:
      self._chunks, self._group = _footer(self._fd)
      options = "readahead_buffer_size:0,max_parallelism:0"  # no reading ahead
      reader = array_record_module.ArrayRecordReader(str(path), options, file_reader_buffer_size=32_768)
      self._reader = reader
      if not reader.ok():
        reader.close()  # raises the reason
        raise OSError("it cannot be opened, or is truncated")
    except BaseException:
      self.close()
      raise

  def __len__(self) -> int:
    return int(self._reader.num_records())

  def read(self, position: int, most: int) -> bytes:
    """Read a record.

    Args:
      position: index of the record.
      most: largest size of the record in bytes.
    Raises: OSError, RuntimeError, ValueError: the record is damaged, compressed or larger than `most`.
    """
    _checked(self._fd, int(self._chunks[position // self._group]), most + 64)
    return self._reader.read([position])[0]

  def close(self) -> None:
    """Close the file."""
    os.close(self._fd)
    if self._reader is not None:
      with contextlib.suppress(RuntimeError):  # it repeats the error of a record that could not be read
        self._reader.close()


def _footer(fd: int) -> tuple[UInt64[np.ndarray, " chunks"], int]:
  """Read the footer: (start of each chunk of records, number of records in a chunk)."""
  size = os.fstat(fd).st_size
  if size == 0 or size % _BLOCK:
    raise ValueError(f"{size} bytes, not a multiple of {_BLOCK}: it is truncated")
  postscript, _ = _simple(_content(fd, size - _BLOCK, _BLOCK))
  start = int(_varints(postscript)[1])
  content = _content(fd, start, MAX_FOOTER)
  if size - _after(start, _CHUNK.size + len(content)) >= 3 * _BLOCK:  # one has the postscript, and one may be padding
    raise ValueError("its footer is not at its end, so it is several files in one; read each by itself")
  values, first = _simple(content)
  entries = _varints(values[first:])  # (tag, number) of three fields: position, bytes, records
  if len(entries) % 6 or (entries.reshape(-1, 6)[:, ::2] != (8, 16, 24)).any():
    raise ValueError("its footer is damaged")
  chunks = entries.reshape(-1, 6)
  return chunks[:, 1], max(1, int(chunks[0, 5])) if len(chunks) else 1


def _content(fd: int, start: int, most: int) -> bytes:
  size = _checked(fd, start, most)
  return _read(fd, _after(start, _CHUNK.size), size)


def _checked(fd: int, start: int, most: int) -> int:
  """Size of the data of a chunk. Raises ValueError if the chunk is compressed, damaged or larger than `most`."""
  head = _read(fd, start, _CHUNK.size + 1)
  if len(head) <= _CHUNK.size:
    raise ValueError("it is truncated")
  _, size, _, kind, decoded = _CHUNK.unpack_from(head)
  if chr(kind & 255) != "r" or head[-1] or decoded > size:
    raise ValueError(f"it is compressed, which is refused, or damaged; {_REMEDY}")
  if size > most:
    raise ValueError(f"a chunk of {size} bytes, and the limit is {most}; {_REMEDY}, and with smaller images")
  return size


def _read(fd: int, start: int, size: int) -> bytes:
  """Read bytes of a chunk, without the block headers between them."""
  pieces, place, end = [], start, _after(start, size)
  while place < end:
    stop = min(end, place - place % _BLOCK + _BLOCK)
    place += 0 if place % _BLOCK else _BLOCK_HEADER
    pieces.append(os.pread(fd, stop - place, place))
    place = stop
  return b"".join(pieces)


def _after(start: int, size: int) -> int:
  """Position after `size` bytes of a chunk, with the block headers between them."""
  return start + size + (size + (start + _USABLE - 1) % _BLOCK) // _USABLE * _BLOCK_HEADER


def _simple(data: bytes) -> tuple[bytes, int]:
  """Split a plain chunk into (its records, one after another; the length of the first record)."""
  numbers = _varints(data[1:11])  # the first is the length of the list of lengths
  listed = int(numbers[0])
  begin = 1 + _length(listed)
  lengths = _varints(data[begin : begin + listed])
  if lengths.sum() != len(data) - begin - listed:
    raise ValueError("its footer is damaged")
  return data[begin + listed :], int(lengths[0])


def _length(number: int) -> int:
  return max(1, -(-number.bit_length() // 7))


def _varints(data: bytes) -> UInt64[np.ndarray, " n"]:
  """Decode numbers with seven bits per byte. The last byte of each is below 128. Raises ValueError if there is none."""
  octets = np.frombuffer(data, np.uint8)
  ends = np.flatnonzero(octets < 128)
  if not len(ends):
    if not len(octets):
      return np.zeros(0, np.uint64)
    raise ValueError("its footer is damaged")
  octets = octets[: ends[-1] + 1]
  starts = np.concatenate([[0], ends[:-1] + 1])
  shifts = np.arange(len(octets)) - np.repeat(starts, ends - starts + 1)
  if shifts.max() > 8:
    raise ValueError("its footer is damaged")
  return np.add.reduceat((octets & 127).astype(np.uint64) << (7 * shifts).astype(np.uint64), starts)
