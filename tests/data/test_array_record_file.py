"""ArrayRecord files: what their library would read is looked at first."""

import pytest
from array_record.python import array_record_module
from hypothesis import given
from hypothesis import strategies as st

from mmjax.data.shards.array_record_file import ArrayRecordFile, _varints


def write(path, records, options):
  writer = array_record_module.ArrayRecordWriter(str(path), options)
  for record in records:
    writer.write(record)
  writer.close()
  return path


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("sizes", [[8] * 9, [30, 65_400, 8, 200_000, 8, 65_536, 65_512, 9, 70_000], [8]])
def test_plain_records_are_read_wherever_blocks_end(tmp_path, sizes, group):
  records = [bytes([n]) * size for n, size in enumerate(sizes)]
  file = ArrayRecordFile(write(tmp_path / "x.array_record", records, f"group_size:{group},uncompressed"))
  assert len(file) == len(records)
  for position in reversed(range(len(records))):
    assert file.read(position, 400_000) == records[position]
  file.close()


def test_a_file_without_records_has_none(tmp_path):
  file = ArrayRecordFile(write(tmp_path / "x.array_record", [], "group_size:1,uncompressed"))
  assert len(file) == 0
  with pytest.raises(IndexError):
    file.read(0, 100)
  file.close()


@pytest.mark.parametrize("options", ["zstd:3", "brotli:1", "snappy", "transpose:true,uncompressed"])
def test_what_would_be_decompressed_is_refused(tmp_path, options):
  path = write(tmp_path / "x.array_record", [b"record" * 100] * 3, f"group_size:1,{options}")
  with pytest.raises(ValueError, match=r"compressed, which is refused.*python -m mmjax.data shard"):
    file = ArrayRecordFile(path)
    file.read(0, 10_000)


def test_a_large_record_is_refused_unread(tmp_path, monkeypatch):
  path = write(tmp_path / "x.array_record", [b"a" * 100, b"b" * 10_000], "group_size:1,uncompressed")
  file = ArrayRecordFile(path)
  assert file.read(0, 200) == b"a" * 100
  monkeypatch.setattr(file, "_reader", None)
  with pytest.raises(ValueError, match=r"a chunk of 100\d\d bytes, and the limit is 264"):
    file.read(1, 200)


def test_a_footer_that_is_cut_or_empty_is_refused(tmp_path):
  whole = write(tmp_path / "x.array_record", [b"record"] * 3, "group_size:1,uncompressed").read_bytes()
  for data in (b"", whole[:-1], whole[:65_536], bytes(131_072), whole[:65_536] + bytes(65_536)):
    (tmp_path / "y.array_record").write_bytes(data)
    with pytest.raises(ValueError, match=r"truncated|damaged"):
      ArrayRecordFile(tmp_path / "y.array_record")


@pytest.mark.parametrize("size", [100, 50_000])
def test_files_that_were_joined_are_refused(tmp_path, size):
  parts = [write(tmp_path / f"{n}.array_record", [bytes([n]) * size] * 3, "group_size:1,uncompressed") for n in (1, 2)]
  (tmp_path / "x.array_record").write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
  with pytest.raises(ValueError, match="several files in one; read each by itself"):
    ArrayRecordFile(tmp_path / "x.array_record")


def varint(number: int) -> bytes:
  low, rest = number & 127, number >> 7
  return bytes([low | 128]) + varint(rest) if rest else bytes([low])


@given(st.lists(st.integers(0, 2**63 - 1), max_size=20))
def test_numbers_of_seven_bits_a_byte(numbers):
  assert _varints(b"".join(map(varint, numbers))).tolist() == numbers
