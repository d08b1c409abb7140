"""Records of a tar: none vanishes, none is mixed with another, and each member and byte is accounted for."""

import io
import logging
import tarfile
import unicodedata

import pytest
from PIL import Image

from mmjax.data import DataError, Reading, Shards
from mmjax.data.__main__ import main
from mmjax.data.images.decoding import FORMATS
from mmjax.data.records import Record
from mmjax.data.shards import tar_headers
from mmjax.data.shards.media import IMAGE
from mmjax.data.shards.tar_index import scan
from mmjax.data.shards.writer import write_shards
from tests.data.shard_files import number_of, picture, tar_of

NFC, NFD = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))


def pair(number: int, name: str):
  return [(f"{name}.png", picture(number)), (f"{name}.txt", f"number {number}".encode())]


def pairs(*names: str):
  return [member for number, name in enumerate(names) for member in pair(number, name)]


def opened(path, on_bad_record="error"):
  return Shards((str(path),)).open("all", Reading(str(path.parent / "cache"), on_bad_record))


def numbers(path, on_bad_record="error"):
  source = opened(path, on_bad_record)
  return [number_of(source[index]) for index in range(len(source))]


def fault(path) -> str:
  """The error for a tar; with "skip", the same fault is counted."""
  faults = scan(path, json_first=False, max_bytes=10**6)[1]
  assert faults.bad + bool(faults.broken) == 1
  with pytest.raises(DataError) as caught:
    opened(path)
  return str(caught.value)


def special(name: str, kind: bytes, **fields) -> tarfile.TarInfo:
  member = tarfile.TarInfo(name)
  member.type = kind
  for field, value in fields.items():
    setattr(member, field, value)
  return member


def checked(header: bytes | bytearray) -> bytes:
  """A header whose checksum is put right."""
  header = bytearray(header)
  header[148:156] = b" " * 8
  header[148:156] = b"%06o\0 " % sum(header)
  return bytes(header)


def test_names_with_dots_are_names(tmp_path):
  names = ("plain", "holiday 2.0", "shot_3.5x", "v1.0/a.b", "end")
  assert numbers(tar_of(tmp_path / "x.tar", pairs(*names))) == [0, 1, 2, 3, 4]
  numbered = [f"0.{number}" for number in range(9)]  # one sample for WebDataset
  assert numbers(tar_of(tmp_path / "x.tar", pairs(*numbered))) == list(range(9))
  apart = [member for half in (0, 1) for n in range(3) for member in [pair(n, f"holiday 2.{n}")[half]]]
  assert numbers(tar_of(tmp_path / "x.tar", apart)) == [0, 1, 2]


def test_other_members_of_a_sample_do_not_end_a_record(tmp_path):
  members = [("a.png", picture(0)), ("a.seg.npy", b"x"), ("a.0.cls", b"1"), ("README", b"x"), ("a.txt", b"number 0")]
  assert numbers(tar_of(tmp_path / "x.tar", members)) == [0]
  members[1] = ("a.seg.png", picture(5))
  assert "x.tar, a.seg: has no caption" in fault(tar_of(tmp_path / "x.tar", members))
  assert numbers(tmp_path / "x.tar", "skip") == [0]


@pytest.mark.parametrize("caption", ["a.png.txt", "a.caption.txt", "A.txt", "texts/a.txt", "a_.txt", "a.png.json"])
def test_captions_with_other_names_are_named_and_so_is_the_image(tmp_path, caption):
  path = tar_of(tmp_path / "x.tar", [("a.png", picture(0)), (caption, b"{}"), *pair(2, "b")])
  with pytest.raises(DataError, match=r"x.tar, a: has no caption .* rename .*the first of 2"):
    opened(path)
  _, faults = scan(path, json_first=False, max_bytes=10**6)
  assert any(message.startswith(f"{caption[: caption.rindex('.')]}: has no image") for message in faults.named)
  assert faults.bad == 2 and numbers(path, "skip") == [2]


def test_files_that_a_mac_adds_are_passed_over(tmp_path, caplog):
  members = [
    member
    for name, data in pairs("a", "d/b")
    for member in (((f"{name[:-5]}._{name[-5:]}"), b"\0\5\x16\7"), (name, data))
  ]
  members.insert(1, (".DS_Store", b"x"))
  assert [name for name, _ in members[:3]] == ["._a.png", ".DS_Store", "a.png"]
  assert numbers(tar_of(tmp_path / "x.tar", members)) == [0, 1]
  assert "Passed over" in caplog.text and "5 x name that begins with a dot" in caplog.text


def test_members_that_are_not_side_by_side_are_named_with_the_remedy(tmp_path):
  members = sorted(pairs(*(f"{n:02}" for n in range(30))), key=lambda member: member[0][-3:])  # tar c *.png *.txt
  path = tar_of(tmp_path / "x.tar", members)
  with pytest.raises(DataError, match=r"side by side: \d\d.png \(byte \d+\), \d\d.txt \(.*tar --sort=name.*30"):
    opened(path)
  _, faults = scan(path, json_first=False, max_bytes=10**6)
  assert (faults.bad, faults.faulty, len(faults.named)) == (30, 60, 20)
  path = tar_of(tmp_path / "x.tar", [*pairs("b"), ("a.png", picture(9)), *pairs("c"), ("a.txt", b"number 9")])
  assert "a: its members are not side by side: a.png (byte 2048), a.txt (byte 5120)" in fault(path)
  assert numbers(path, "skip") == [0, 0]


@pytest.mark.parametrize(
  ("members", "message"),
  [
    ([*pairs("a"), ("a.png", picture(1))], r"a: has 2 images: a.png \(byte 0\), a.png \(byte 2048\). Keep one"),
    ([*pairs("a"), ("a.JPG", picture(1))], r"a: has 2 images: a.png .*, a.JPG"),
    ([*pairs("a"), ("a.TXT", b"other")], r"a: has 2 captions: a.txt .*, a.TXT"),
    ([*pairs("a"), ("a.json", b"{}"), ("a.json", b"{}")], r"a: has 2 captions: a.json"),
    ([*pairs("a", "b"), *pair(2, "a")], r"a: its members .* A tar has each record once"),
    ([*pairs("a", "b"), ("a.txt", b"other")], r"a: its members .*: a.png .*, a.txt .*, a.txt .* A tar has each record"),
    ([*pairs("a", "b"), *pair(2, "./a")], r"a: its members .*\./a.png .* different forms"),
    ([*pairs(NFC, "b"), *pair(2, NFD)], rf"{NFC}: its members .* different forms .*NFC and in NFD.*: rename them"),
  ],
)
def test_members_that_are_there_twice_are_named(tmp_path, members, message):
  path = tar_of(tmp_path / "x.tar", members, format=tarfile.GNU_FORMAT)
  with pytest.raises(DataError, match=message):
    opened(path)
  assert scan(path, json_first=False, max_bytes=10**6)[1].bad == 1


@pytest.mark.parametrize("zeros", [1, 2, 20, 300])
def test_archives_that_are_joined_are_read_to_the_end(tmp_path, zeros):
  parts = [tar_of(tmp_path / f"{n}.tar", pair(n, name)).read_bytes() for n, name in enumerate("abc")]
  whole = parts[0][:2048] + bytes(512 * zeros) + parts[1] + parts[2]
  path = tmp_path / "x.tar"
  path.write_bytes(whole)
  assert numbers(path) == [0, 1, 2]
  _, faults = scan(path, json_first=False, max_bytes=10**6)
  assert faults.bytes.total() == len(whole) and faults.bytes["zeros after an archive"] >= 512 * zeros


def test_the_halves_of_records_of_joined_archives_are_not_mixed(tmp_path):
  first = tar_of(tmp_path / "1.tar", [*pairs("a"), ("b.png", picture(1))]).read_bytes()
  path = tmp_path / "x.tar"
  path.write_bytes(first + tar_of(tmp_path / "2.tar", [("b.txt", b"of another"), *pair(2, "c")]).read_bytes())
  assert "b: its members are not side by side" in fault(path)
  assert numbers(path, "skip") == [0, 2]


def test_what_follows_the_end_and_is_no_tar_is_a_fault(tmp_path):
  data = tar_of(tmp_path / "x.tar", pairs("a", "b")).read_bytes()
  for more, message in (
    (b"x" * 1000, r"after the end-of-archive mark, byte \d+: not a tar header"),
    (b"x", r"after the end-of-archive mark, byte \d+: it ends within a header"),
    (bytes(2**20), r"byte 4096: \d+ zeros, which no writer puts there: a part of it is missing"),
  ):
    (tmp_path / "x.tar").write_bytes(data + more)
    with pytest.raises(DataError, match=message):
      opened(tmp_path / "x.tar")
  (tmp_path / "x.tar").write_bytes(data[:4096] + bytes(100))  # cut within the mark
  with pytest.raises(DataError, match="byte 4096: it ends without an end-of-archive mark"):
    opened(tmp_path / "x.tar")


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"\x1f\x8b" + bytes(600), "a gzip file; uncompress it"), (b"(\xb5/\xfd" + bytes(600), "a Zstandard file"),
    (b"PK\3\4" + bytes(600), "a zip file"), (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
    (b"<?xml version='1.0'?><Error>", "a page of HTML or XML; download it again"),
  ],
)  # fmt: skip
def test_other_files_that_are_named_tar_are_named(tmp_path, data, message):
  (tmp_path / "x.tar").write_bytes(data)
  with pytest.raises(DataError, match=rf"x.tar, byte 0: not a tar but {message}"):
    opened(tmp_path / "x.tar")


@pytest.mark.parametrize(
  ("kind", "remedy"),
  [
    (tarfile.SYMTYPE, "symbolic link, which is refused. Write the tar with --dereference"),
    (tarfile.LNKTYPE, "hard link, which is refused. Write the tar with --hard-dereference"),
    (b"M", "part of a member of another volume, which is refused"),
  ],
)
def test_links_and_the_like_in_place_of_an_image_are_named(tmp_path, kind, remedy):
  members = [*pairs("a"), special("b.png", kind, linkname="a.png"), ("b.txt", b"number 1"), *pair(2, "c")]
  path = tar_of(tmp_path / "x.tar", members)
  assert f"b.png: {remedy}" in fault(path)
  assert numbers(path, "skip") == [0, 2]


def sparse(name: str, content: bytes, maps: int) -> bytes:
  """A sparse member as GNU tar has written it since 1992, with `maps` blocks between header and content."""
  member = tarfile.TarInfo(name)
  member.type, member.size = tarfile.GNUTYPE_SPARSE, len(content)
  header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
  header[482] = maps > 0
  blocks = b"".join(bytes(504) + bytes([n < maps - 1]) + bytes(7) for n in range(maps))
  return checked(header) + blocks + content.ljust(-(-len(content) // 512) * 512, b"\0")


@pytest.mark.parametrize("maps", [0, 1, 3])
def test_a_sparse_member_is_refused_and_the_rest_is_read(tmp_path, maps):
  before = tar_of(tmp_path / "x.tar", pairs("a")).read_bytes()[:2048]
  after = tar_of(tmp_path / "x.tar", [("b.txt", b"number 1"), *pair(2, "c")]).read_bytes()
  (tmp_path / "x.tar").write_bytes(before + sparse("b.png", picture(1) + bytes(600), maps) + after)
  assert "b.png: sparse member, which is refused. Write the tar without --sparse" in fault(tmp_path / "x.tar")
  assert numbers(tmp_path / "x.tar", "skip") == [0, 2]


def test_a_sparse_member_of_a_pax_tar_is_refused_by_its_name(tmp_path):
  member = special("GNUSparseFile.7/b.png", tarfile.REGTYPE)
  member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "d/b.png", "path": "GNUSparseFile.7/b.png"}
  path = tar_of(tmp_path / "x.tar", [*pairs("a"), member, ("d/b.txt", b"number 1")], format=tarfile.PAX_FORMAT)
  assert "d/b.png: sparse member" in fault(path)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["k" * 90 + "/" + "n" * 90, "日本" * 15, "d/" * 40 + NFC, "./a", "line\nline"])
def test_records_have_their_whole_names(tmp_path, form, name):
  source = opened(tar_of(tmp_path / "x.tar", pairs(name), format=form))
  assert source[0]["id"] == f"{tmp_path}/x.tar:{name}.png".replace("\n", "\\n")


def test_names_that_are_the_same_file_are_one_record(tmp_path):
  for one, other in (("./a", "a"), ("d//a", "d/a"), (NFC, NFD), ("d/./a", "d/a")):
    members = [(f"{one}.png", picture(4)), (f"{other}.txt", b"number 4")]
    assert numbers(tar_of(tmp_path / "x.tar", members, format=tarfile.GNU_FORMAT)) == [4]


def test_names_in_another_encoding_are_not_mixed(tmp_path):
  members = [("\udce9.png", picture(0)), ("\udce8.txt", b"of another"), *pair(2, "\udcea")]
  path = tar_of(tmp_path / "x.tar", members, format=tarfile.GNU_FORMAT)
  source = opened(path, "skip")
  assert [record["id"] for record in source] == [f"{path}:\\xea.png"] and source.num_skipped == 2
  with pytest.raises(DataError, match=r"\\xe9: has no caption"):
    opened(path)


def test_headers_for_all_members_may_not_rename_them(tmp_path):
  def globals_(**headers):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
      for name, data in pairs("a"):
        tar.addfile(special(name, tarfile.REGTYPE, size=len(data)), io.BytesIO(data))
    return tmp_path / "x.tar"

  assert numbers(globals_(comment="a commit", mtime="9")) == [0]
  for name in ("path", "size", "GNU.sparse.size"):
    assert f"a global header sets '{name}' of all members after it" in fault(globals_(**{name: "9"}))


def test_a_damaged_extended_header_is_a_fault(tmp_path):
  data = tar_of(tmp_path / "x.tar", pairs("é" * 60), format=tarfile.PAX_FORMAT).read_bytes()
  (tmp_path / "x.tar").write_bytes(data.replace(b" path=", b" path:", 1))
  with pytest.raises(DataError, match=r"damaged extended header, which is refused"):
    opened(tmp_path / "x.tar")
  (tmp_path / "x.tar").write_bytes(data)
  (solaris := bytearray(data))[156:157] = b"X"
  (tmp_path / "x.tar").write_bytes(checked(solaris[:512]) + solaris[512:])
  assert numbers(tmp_path / "x.tar") == [0]


def test_sizes_that_only_the_extended_header_has_are_read(tmp_path):
  path = tmp_path / "x.tar"
  with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
    for name, data in pairs("a", "b"):
      member = special(name, tarfile.REGTYPE, pax_headers={"size": str(len(data))})
      tar.fileobj.write(member.tobuf(tarfile.PAX_FORMAT) + data.ljust(512, b"\0"))
  assert numbers(path) == [0, 1]


def test_directories_labels_and_sizes_of_what_has_no_content_are_passed_over(tmp_path):
  members = [
    special("my volume", b"V"), special("d", tarfile.DIRTYPE, size=4096), *pairs("d/a")[:1],
    special("e/", tarfile.AREGTYPE), special("link", tarfile.LNKTYPE, linkname="d/a.png", size=9), *pairs("d/a")[1:],
  ]  # fmt: skip
  path = tmp_path / "x.tar"
  with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
    for member in members:
      info = member if isinstance(member, tarfile.TarInfo) else special(member[0], tarfile.REGTYPE, size=len(member[1]))
      tar.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT))
      if not isinstance(member, tarfile.TarInfo):
        tar.fileobj.write(member[1].ljust(512, b"\0"))
  assert numbers(path) == [0]
  _, faults = scan(path, json_first=False, max_bytes=10**6)
  assert faults.passed == {"directory": 2, "volume label": 1} and faults.refused == {"hard link": 1}


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.heic", b"x", "an image, but .heic is not read. Convert it"), ("a.JP2", b"x", "an image, but .jp2 is not read"),
    ("a.svg", b"<svg", "an image, but .svg is not read"), ("a", picture(1), "its content is an image"),
    ("a.xyz", picture(1, "JPEG"), "its content is an image"), ("a.jpg.bak", b"x", "looks like a copy of an image"),
    ("a.0", picture(1, "WEBP"), "its content is an image"), ("a.caption", b"x", "looks like a caption"),
    ("a.text", b"x", "looks like a caption"), ("a.txt~", b"x", "looks like a copy of an image or a caption"),
    ("a.txt.gz", b"x", "looks like a copy"), ("a.PNG (1)", picture(1), "its content is an image"),
  ],
)  # fmt: skip
def test_what_looks_like_an_image_or_a_caption_and_is_not_taken_is_named(tmp_path, name, content, message):
  path = tar_of(tmp_path / "x.tar", [*pairs("b"), (name, content)])
  assert f"x.tar, {name}: {message}" in fault(path)
  path = tar_of(tmp_path / "x.tar", [(name, content), ("._a.txt", b"x"), *pairs("a")])
  assert f"x.tar, {name}: {message}" in fault(path)
  assert numbers(path, "skip") == [0], "the record beside it is not lost"


def test_images_of_all_formats_that_are_decoded_are_taken(tmp_path):
  Image.init()
  known = {extension.removeprefix(".") for extension, name in Image.EXTENSION.items() if name in FORMATS}
  assert known <= set(IMAGE.extensions)
  assert not set(IMAGE.extensions) & set(IMAGE.unread)
  for extension in (*IMAGE.extensions, "TIF", "Jpeg"):
    members = [(f"a.{extension}", picture(7)), ("a.TXT", b"number 7")]
    assert numbers(tar_of(tmp_path / "x.tar", members)) == [7]


def test_members_that_are_no_part_of_records_are_counted(tmp_path, caplog):
  members = [
    *pairs("a"),
    ("a.json", b'{"caption": "b"}'),
    ("a.cls", b"1"),
    ("README", b"x"),
    ("b.mp4", b"\0\0\0\x18ftypmp"),
  ]
  path = tar_of(tmp_path / "x.tar", members)
  assert numbers(path) == [0]
  assert "1 x .cls, 1 x .json beside .txt, 1 x .mp4, 1 x name without extension" in caplog.text
  many = [*pairs("a"), *((f"a.x{n}", b"") for n in range(300))]
  _, faults = scan(tar_of(tmp_path / "x.tar", many), json_first=False, max_bytes=10**6)
  assert len(faults.passed) == 31 and faults.passed["other extension"] == 270


def test_inspect_accounts_for_every_member_and_byte(tmp_path, capsys):
  members = [
    *pairs("a", "b"), ("a.cls", b"1"), ("c.png", picture(3)), special("d.png", tarfile.SYMTYPE, linkname="a.png"),
    ("._a.png", b"x"), special("e", tarfile.DIRTYPE), ("f.pkl", b"x"), ("k" * 300 + ".json", b"{}"),
  ]  # fmt: skip
  path = tar_of(tmp_path / "x.tar", members, format=tarfile.PAX_FORMAT)
  logging.disable(logging.WARNING)
  try:
    assert main(["inspect", "--skip", "--dir", str(tmp_path / "cache"), str(path)]) == 0
  finally:
    logging.disable(logging.NOTSET)
  first, second, third = capsys.readouterr().out.splitlines()
  assert first == "2 records; 3 skipped; refused 1 x pickle, 1 x symbolic link"
  assert second == (
    "11 members: 1 x .cls, 1 x directory, 4 x image or caption of a record, 1 x name that begins with a dot, "
    "2 x of a fault, 1 x pickle, 1 x symbolic link"
  )
  with tarfile.open(path) as tar:
    found = tar.getmembers()
  sizes = {member.name: member.size for member in found}
  images, captions = sizes["a.png"] + sizes["b.png"], sizes["a.txt"] + sizes["b.txt"]
  rest = sum(sizes.values()) - images - captions
  total = path.stat().st_size
  zeros = total - (found[-1].offset_data + 512)
  headers = total - zeros - images - captions - rest
  assert len(found) == 11 and third == (
    f"{total} bytes: {images} images, {captions} captions, {rest} other members, {headers} headers and padding, "
    f"{zeros} zeros after an archive"
  )


def test_inspect_accounts_for_a_tar_without_records(tmp_path, capsys):
  path = tar_of(tmp_path / "x.tar", [("a.png", picture(1)), *pairs("b")])
  path.write_bytes(path.read_bytes()[:1500])
  assert main(["inspect", "--skip", "--dir", str(tmp_path), str(path)]) == 0
  found = capsys.readouterr()
  assert "it is truncated (the 0 records before are complete)" in found.err
  assert found.out.splitlines() == [
    "0 records; 1 skipped; refused nothing",
    "1 members: 1 x of a fault",
    f"1500 bytes: {len(picture(1))} other members, {1024 - len(picture(1))} headers and padding, 476 not read",
  ]


def test_the_members_of_a_tar_have_no_gap_between_them(tmp_path):
  members = [*pairs("a" * 200, NFD), special("d", tarfile.DIRTYPE)]
  for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    path = tar_of(tmp_path / "x.tar", members, format=form)
    with path.open("rb") as file:
      found = list(tar_headers.members(file.fileno(), path.stat().st_size))
    assert [member.start for member in found] == [0, *(member.end for member in found[:-1])]
    assert found[-1].kind == tar_headers.ZEROS and found[-1].end == path.stat().st_size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_images_of_all_formats_are_written_and_read(tmp_path, kind):
  image = picture(1, kind)
  record = Record(image=image, captions={"name": ["number 1"]}, id="photo 1", concept=1)
  (path,) = write_shards([record], tmp_path / "data", format="webdataset", per_shard=1)
  assert opened(path)[0]["image"] == image
  record = Record(image=b"x" + image, captions={"name": ["number 1"]}, id="photo 1", concept=1)
  with pytest.raises(DataError, match=r"photo 1: an image in a shard is JPEG.* Convert it"):
    list(write_shards([record], tmp_path / "more", format="webdataset", per_shard=1))
