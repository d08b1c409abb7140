"""Files made to harm: refused, counted, never executed, and never more than so much memory."""

import dataclasses
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time
import zlib

import pytest
from array_record.python import array_record_module
from PIL import Image

from mmjax.data import DataConfig, DataError, Folder, Reading, Shards
from mmjax.data.images.decoding import FORMATS, decode
from mmjax.data.images.photo import open_photo
from mmjax.data.separated import MAX_LINE
from mmjax.data.shards.record import MAX_TEXT_BYTES, decode_record, encode_record
from mmjax.data.shards.tar_headers import BrokenTar, members
from mmjax.data.sources.shards import ShardRecords
from tests.data.shard_files import number_of, picture, tar_of

# Runs a command as a shell would, were anybody to unpickle it.
PICKLE = b"cposix\nsystem\n(S'touch %s'\ntR."


def source(path, **options) -> ShardRecords:
  return Shards((str(path),)).open("all", Reading(str(path.parent / "cache"), **options))


def chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
  """A PNG that claims a size and has no pixels."""
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
  member = tarfile.TarInfo(name)
  member.type, member.linkname = kind, target
  return member


def test_what_has_no_place_in_a_tar_is_counted_and_never_read(tmp_path, caplog):
  secret = tmp_path / "secret.png"
  secret.write_bytes(picture(9))
  path = tar_of(tmp_path / "x.tar", [
    special("a.png", tarfile.SYMTYPE, str(secret)), ("a.txt", b"number 9"),
    special("b.png", tarfile.LNKTYPE, "../secret.png"), ("b.txt", b"number 9"),
    ("../c.png", picture(3)), ("../c.txt", b"number 3"),
    (str(tmp_path / "d.png"), picture(4)), (r"..\e.png", picture(5)), (r"C:\f.png", picture(6)),
    special("g.png", tarfile.CHRTYPE), special("h.png", tarfile.BLKTYPE), special("i.png", tarfile.FIFOTYPE),
    ("k.png", picture(7)), ("k.pkl", b"x"), ("k.pyd", b"x"), ("k.pth", b"x"), ("k.txt", b"number 7"),
    special("folder", tarfile.DIRTYPE), special("l.png", b"S"),
    special("m.png", b"Z"),
  ], format=tarfile.GNU_FORMAT)  # fmt: skip
  found = source(path, on_bad_record="skip")
  assert [number_of(found[index]) for index in range(len(found))] == [7]
  assert found.refused == {
    "symbolic link": 1, "hard link": 1, "name that leaves the archive": 5, "character device": 1, "block device": 1,
    "FIFO": 1, "pickle": 3, "sparse member": 1, "unknown kind of member": 1,
  }  # fmt: skip
  assert "3 x pickle" in caplog.text and "never read" in caplog.text
  assert not (tmp_path.parent / "c.png").exists() and not (tmp_path / "d.png").exists()


@pytest.mark.parametrize("name", ["a.pkl", "a.txt", "a.json", "a.png", "a.jpg"])
def test_a_pickle_under_any_name_is_never_executed(tmp_path, name):
  mark = tmp_path / "executed"
  members = {"a.png": picture(1), "a.txt": b"number 1"}
  members.pop({"a.json": "a.txt", "a.jpg": "a.png"}.get(name, ""), None)
  members[name] = PICKLE % str(mark).encode()
  found = source(tar_of(tmp_path / "x.tar", list(members.items())), on_bad_record="skip")
  for index in range(len(found)):
    try:
      decode(found[index]["image"])
    except DataError:
      continue
  assert not mark.exists()


def test_programs_in_pictures_are_refused(tmp_path):
  eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n"
  svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"><script>x</script></svg>'
  for data in (eps, svg, b"", b"\0" * 100, b"GIF89a", b"RIFF\xff\xff\xff\xffWEBP", b"\xff\xd8\xff"):
    with pytest.raises(DataError, match=r"^r: (cannot be read|the image is corrupt)"):
      decode(data, record="r")
  assert not {"EPS", "WMF", "FPX", "PDF", "ICNS", "JPEG2000"} & set(FORMATS)


@pytest.mark.parametrize("claim", [(60_000, 60_000), (2**31 - 1, 1), (30_000, 4_000)])
def test_headers_that_claim_too_much_are_refused_undecoded(claim):
  with pytest.raises(DataError, match=r"r: (refused|cannot be read)"):
    decode(png(*claim), record="r", max_pixels=10**8)
  gif = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;"
  with pytest.raises(DataError, match=r"r: (refused|cannot be read)"):
    decode(gif, record="r", max_pixels=10**8)


def test_headers_that_lie_are_caught():
  data = io.BytesIO()
  Image.new("RGB", (64, 48)).save(data, "JPEG")
  honest = data.getvalue()
  at = honest.index(b"\xff\xc0") + 5
  assert struct.unpack(">HH", honest[at : at + 4]) == (48, 64)
  taller = honest[:at] + struct.pack(">HH", 4800, 640) + honest[at + 4 :]
  with pytest.raises(DataError, match="r: the JPEG is damaged"):  # Pillow shows grey where pixels are missing
    decode(taller, record="r", max_pixels=4800 * 640)
  with pytest.raises(DataError, match="refused"):
    decode(taller, record="r", max_pixels=4800 * 640 - 1)
  frame = honest[at - 5 : at] + struct.pack(">HH", 60_000, 60_000) + honest[at + 4 : at + 14]
  second = honest.replace(b"\xff\xda", frame + b"\xff\xda", 1)
  with pytest.raises(DataError, match="refused"):
    open_photo(second, record="r", max_pixels=10_000)


def test_text_that_is_none_is_refused(tmp_path):
  for text, message in (
    (b"\xff\xfe\xfd", "not UTF-8"), (b"  \n", "empty"), (b"", r"0 bytes"),
    (b"a" * (MAX_TEXT_BYTES + 1), "1000001 bytes"),
  ):  # fmt: skip
    with pytest.raises(DataError, match=message):
      source(tar_of(tmp_path / "x.tar", [("a.png", picture(1)), ("a.txt", text)]))[0]
  for text, message in (
    (b"[" * 100_000, "not JSON"), (b'{"caption": "\\ud800"}', "not Unicode"), (b'{"caption": 1}', "neither a text"),
    (b"9" * 5000, "not JSON"), (b"[]", "not an object"), (b'{"caption": []}', "neither"), (b'{"url": "x"}', "no field"),
  ):  # fmt: skip
    with pytest.raises(DataError, match=message):
      source(tar_of(tmp_path / "x.tar", [("a.png", picture(1)), ("a.json", text)]))[0]


@pytest.mark.parametrize("change", [
  lambda data: b"", lambda data: data[:7], lambda data: b"mmj2" + data[4:],
  lambda data: b"mmj1\xff\xff\xff\xff" + data[8:], lambda data: data[:8] + b"\0" * 8 + data[16:],
])  # fmt: skip
def test_records_of_an_array_record_are_checked(change):
  good = encode_record(b"picture", ["one", "two"], "k")
  assert decode_record(good, "r") == (b"picture", ["one", "two"], "k")
  with pytest.raises(DataError, match=r"^r: "):
    decode_record(change(good), "r")


def test_tar_headers_cannot_claim_what_is_not_there(tmp_path):
  good = tar_of(tmp_path / "x.tar", [("a.png", picture(1)), ("a.txt", b"number 1")]).read_bytes()
  for size in (b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0"):
    block = bytearray(good[:512])
    block[124:136], block[148:156] = size, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "y.tar").write_bytes(bytes(block) + good[512:])
    with (tmp_path / "y.tar").open("rb") as file, pytest.raises(BrokenTar, match=r"truncated|not a number"):
      list(members(file.fileno(), len(good)))


def test_a_named_pipe_is_no_shard_to_wait_for(tmp_path):
  os.mkfifo(tmp_path / "x.tar")
  with pytest.raises(DataError, match="no such shard"):
    source(tmp_path / "x.tar")


def test_one_endless_line_of_captions_is_refused(tmp_path):
  (tmp_path / "a.png").write_bytes(picture(1))
  for name, head in (("captions.jsonl", '{"image": "a.png", "caption": "'), ("captions.csv", 'image,caption\na.png,"')):
    (tmp_path / name).write_text(head + "a" * MAX_LINE + '"}\n')
    with pytest.raises(DataError, match=r"captions.*(longer than|field larger than)"):
      Folder(str(tmp_path), captions_file=name).open("all", Reading())
  (tmp_path / "captions.csv").write_text("image,caption\na.png,x\n")
  with pytest.raises(DataError, match=r"a.png: \d+ bytes; up to 10 are accepted"):
    Folder(str(tmp_path)).open("all", Reading(max_bytes=10))[0]


MEMORY = """
import sys
from pathlib import Path
from mmjax.data import DataError, Folder, Reading, Shards
from mmjax.data.images.decoding import decode
from mmjax.data.images.photo import open_photo, seen
from mmjax.data.transforms import premultiplied
from mmjax.data.images.geometry import box_matrix

def memory(name):
  return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
def begin():
  open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
  return memory("VmRSS")
def attempt(action):
  try: action()
  except DataError: pass

folder, pixels, file = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
def use(path):
  data = path.read_bytes()
  premultiplied(decode(data, max_pixels=pixels))
  photo = open_photo(data, record="r", max_pixels=pixels)
  if photo is not None: seen(photo, box_matrix(0, 0, *photo.size), 64)
use(folder / "small.jpg"); use(folder / "small.png")  # libraries loaded
def opened(path, on_bad_record):
  return Shards((str(path),)).open("all", Reading(str(folder), on_bad_record, max_bytes=file))
attempt(lambda: opened(folder / "small.tar", "error")[0])
before = begin()
for path in sorted((folder / "bombs").iterdir()):
  attempt(lambda: use(path))
print("pictures", memory("VmHWM") - before)
before = begin()
for path in sorted(folder.glob("bomb*.*")):
  def read():
    source = opened(path, "skip")
    [source[index] for index in range(len(source))]
  attempt(read)
attempt(lambda: Folder(str(folder / "captions")).open("all", Reading()))
print("records", memory("VmHWM") - before)
"""


def test_no_input_takes_more_than_the_stated_memory(tmp_path):
  """24 bytes a pixel of --data.max-pixels and the file twice, for a picture; 56 MB and the file twice, for a record."""
  pixels, file = 2_000_000, 2 * 2**20
  (tmp_path / "bombs").mkdir()
  (tmp_path / "captions").mkdir()
  deflated = zlib.compressobj(1)
  zeros = b"".join(deflated.compress(bytes(2**20)) for _ in range(64)) + deflated.flush()
  bombs = {
    "claims.png": png(60_000, 60_000),
    "text.png": png(9, 9, chunk(b"zTXt", b"a\0\0" + zeros)),
    "profile.png": png(9, 9, chunk(b"iCCP", b"a\0\0" + zeros)),
    "rows.png": png(1599, 1200)[:33] + chunk(b"IDAT", zeros) + chunk(b"IEND", b""),
  }
  for name, data in bombs.items():
    (tmp_path / "bombs" / name).write_bytes(data)
  wide = Image.new("RGB", (1600, 1200), (9, 8, 7))
  for name, options in (("full.jpg", {"progressive": True, "subsampling": 0}), ("full.webp", {}), ("full.gif", {})):
    wide.save(tmp_path / "bombs" / name, **options)
  Image.new("RGBA", (1600, 1200)).save(tmp_path / "bombs" / "clear.png")
  Image.new("RGB", (8, 8)).save(tmp_path / "small.jpg")
  Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
  tar_of(tmp_path / "small.tar", [("a.png", picture(1)), ("a.txt", b"x")])
  hundred = 100 * 2**20
  for number, names in enumerate((("a.txt", "a.png"), ("a.png", "a.txt"))):
    with (tmp_path / f"bomb{number}.tar").open("wb") as file_:
      for name, size in zip(names, (hundred, 4)):
        member = tarfile.TarInfo(name)
        member.size = size
        file_.write(member.tobuf())
        file_.truncate(file_.tell() + -(-size // 512) * 512)  # zeros that take no place
        file_.seek(0, 2)
      file_.write(bytes(1024))
  named = tarfile.TarInfo("a.png")
  named.pax_headers = {"comment": "x" * 5 * 2**20}
  tar_of(tmp_path / "bomb3.tar", [named], format=tarfile.PAX_FORMAT)
  nested = [("a.png", picture(1)), ("a.json", b'{"caption": ' + b"[" * 400_000 + b"]" * 400_000 + b"}")]
  tar_of(tmp_path / "bomb4.tar", nested)
  tar_of(tmp_path / "bomb5.tar", [("a.png", picture(1)), ("a.json", b'{"caption": [' + b'"a",' * 249_000 + b'"a"]}')])
  writer = array_record_module.ArrayRecordWriter(str(tmp_path / "bomb6.array_record"), "group_size:1,zstd:3")
  writer.write(encode_record(bytes(hundred), ["a"], "k"))  # compressed to 128 KB
  writer.close()
  (tmp_path / "captions" / "captions.jsonl").write_bytes(b'{"caption": "')
  os.truncate(tmp_path / "captions" / "captions.jsonl", hundred)
  command = [sys.executable, "-c", MEMORY, str(tmp_path), str(pixels), str(file)]
  output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
  used = {line.split()[0]: int(line.split()[1]) for line in output.splitlines()}
  assert 4 * pixels < used["pictures"] < 24 * pixels + 2 * file
  assert used["records"] < 16 * 2**20 + 2 * file + 40 * 2**20, "see MAX_TEXT_BYTES: a list of a million bytes of text"


def test_a_batch_of_captions_of_a_megabyte_takes_no_more_than_its_beginnings(tokenizer):
  words = "hello world " * 5000
  begun = time.process_time()
  ids = tokenizer([words + "x" * 900_000] * 32)
  assert time.process_time() - begun < 3, "all of it was tokenized"
  assert (ids == tokenizer([words])).all()


def test_bad_records_in_a_run_are_counted_and_a_run_of_them_ends_it(tmp_path):
  from mmjax.data import TokenizerConfig, make_loader, make_source, make_tokenizer

  good = [
    (f"{n}.{kind}", data) for n in range(6) for kind, data in (("png", picture(n)), ("txt", f"number {n}".encode()))
  ]
  bad = [("x.png", b"cposix"), ("x.txt", b"x"), ("y.png", picture(1)), ("y.txt", b"\xff\xff")]
  path = tar_of(tmp_path / "x.tar", good + bad)
  config = DataConfig(source=Shards((str(path),), validation=(str(path),)), dir=str(tmp_path))
  config = dataclasses.replace(
    config, on_bad_record="skip", tokenizer=TokenizerConfig(vocab_size=300, max_length=8), cache_mb=0
  )
  found = make_source(config, "train")
  loader = make_loader(
    config, found, make_tokenizer(config, found), image_size=8, batch_size=8, process_index=0, process_count=1
  )
  batch = next(loader)
  assert loader.num_bad_records >= 2 and batch["index"].max() < 6
  assert json.dumps(loader.get_state())
