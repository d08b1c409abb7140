"""Fuzz targets of the data: files of captions, shards, their records, pictures."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from fuzz_inputs import Target, headed, json_mutator, mutated, tar_mutator
from PIL import Image

from mmjax.data import DataError


def csv(folder: Path) -> Target:
  (folder / "a.png").write_bytes(_picture("PNG"))
  seeds = [b'image,caption,split\r\na.png,"a, b",train\r\na.png,"x\r\ny",val\r\n', "file_name,text\na.png,é\n".encode()]
  return Target(seeds, mutated, lambda data: _folder(folder, "captions.csv", data), (DataError,))


def jsonl(folder: Path) -> Target:
  (folder / "a.png").write_bytes(_picture("PNG"))
  lines = [{"image": "a.png", "caption": ["x", "y"]}, {"file_name": "a.png", "text": "é", "split": "train"}]
  seeds = [json.dumps(line).encode() for line in lines]
  return Target(seeds, json_mutator, lambda data: _folder(folder, "captions.jsonl", data), (DataError,))


def tar(folder: Path) -> Target:
  from mmjax.data import Reading, Shards

  def run(data: bytes) -> None:
    """Indexes the tar anew, and reads every record of it."""
    path = folder / "x.tar"
    path.write_bytes(data)
    for index in (folder / "shards").glob("*"):
      index.unlink()
    source = Shards((str(path),)).open("all", Reading(str(folder), "skip", max_bytes=10_000))
    for index in range(len(source)):
      source[index]

  formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
  return Target([_tar(kind) for kind in formats], tar_mutator, run, (DataError,))


def sound_tar(folder: Path) -> Target:
  """A tar of sounds: indexed anew, and every sound of it decoded."""
  from mmjax.data import Reading, Shards
  from mmjax.data.sound.reading import read_sound

  def run(data: bytes) -> None:
    path = folder / "x.tar"
    path.write_bytes(data)
    for index in (folder / "shards").glob("*"):
      index.unlink()
    source = Shards((str(path),), media="sound").open("all", Reading(str(folder), "skip", max_bytes=10_000))
    failed = 0
    for index in range(len(source)):
      record = source[index]
      try:
        read_sound(record["sound"], record=record["id"], max_seconds=2.0)
      except DataError:
        failed += 1
    if failed:
      raise DataError(f"{failed} sounds cannot be decoded")

  files = (("a.wav", "WAV", "PCM_16"), ("b.flac", "FLAC", "PCM_16"), ("c.ogg", "OGG", "VORBIS"))
  members = [(name, _sound(form, codec)) for name, form, codec in (*files, ("d.mp3", "MP3", "MPEG_LAYER_III"))]
  texts = [(f"{name[0]}.txt", b"a caption") for name, _ in members]
  pairs = [member for pair in zip(members, texts, strict=True) for member in pair]
  formats = (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT)
  return Target([_archive(kind, pairs) for kind in formats], tar_mutator, run, (DataError,))


def sound_captions(folder: Path) -> Target:
  """A file of captions that names sounds."""
  from mmjax.data import Folder, Reading

  for name, form in (("a.wav", "WAV"), ("b.flac", "FLAC")):
    (folder / name).write_bytes(_sound(form, "PCM_16"))

  def run(data: bytes) -> None:
    (folder / "captions.csv").write_bytes(data)
    source = Folder(str(folder), media="sound").open("all", Reading(on_bad_record="skip"))
    for index in range(len(source)):
      assert source[index]["sound"]

  seeds = [b'sound,caption\r\na.wav,"a, b"\r\nb.flac,x\r\n', "path;text\nb.flac;é\na.wav;y\n".encode()]
  return Target(seeds, mutated, run, (DataError,))


def array_record(_: Path) -> Target:
  from mmjax.data.shards.record import decode_record, encode_record

  seeds = [encode_record(b"\xff\xd8picture", ["one"], "k"), encode_record(b"", ["é", "two"], "")]
  mutate = headed(lambda length: length.to_bytes(4, "little"), 4, 4)
  return Target(seeds, mutate, lambda data: decode_record(data, "record 0"), (DataError,))


def array_record_file(folder: Path) -> Target:
  """The container itself, which a library reads."""
  from mmjax.data import Reading, Shards
  from mmjax.data.shards.writer import write_shards

  records = [{"image": _picture("PNG"), "captions": {"name": [f"{n}"]}, "id": "", "concept": 0} for n in range(3)]
  (path,) = write_shards(records, folder / "data", format="arrayrecord", per_shard=9)  # type: ignore[arg-type]
  seed = path.read_bytes()

  def run(data: bytes) -> None:
    path.write_bytes(data)
    source = Shards((str(path),)).open("all", Reading(str(folder), "skip"))
    for index in range(min(len(source), 10)):
      source[index]

  return Target([seed], mutated, run, (DataError,))


def caption_json(_: Path) -> Target:
  from mmjax.data.shards.record import parse_json

  seeds = [b'{"caption": "a", "url": "b", "width": 3}', '{"captions": ["é", "ü"]}'.encode()]
  return Target(seeds, json_mutator, lambda data: parse_json(data, "x.json"), (DataError,))


def picture(_: Path) -> Target:
  """Decoded as evaluation does, and as training does."""
  from mmjax.data.images.decoding import decode
  from mmjax.data.images.geometry import box_matrix
  from mmjax.data.images.photo import open_photo, seen

  def run(data: bytes) -> None:
    photo = open_photo(data, record="r", max_pixels=10_000)
    if photo is not None:
      seen(photo, box_matrix(0, 0, *photo.size), 8)
    decode(data, record="r", max_pixels=10_000)

  kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
  seeds = [_picture(kind) for kind in kinds] + [b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>']
  return Target(seeds, mutated, run, (DataError,))


def sound(_: Path) -> Target:
  """Decoded, resampled and turned into features, as training does."""
  from mmjax.data.columns.sound import Sound
  from mmjax.data.sound.features import LogMel

  column = Sound(features=LogMel(mels=8), seconds=0.2, max_seconds=2.0, longer="refuse")

  def run(data: bytes) -> None:
    row = column.row({"id": "r", "sound": data}, None, None)
    assert np.isfinite(row).all()

  kinds = (
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "GSM610"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
  )
  return Target([_sound(*kind) for kind in (*kinds, ("MP3", "MPEG_LAYER_III"))], mutated, run, (DataError,))


def _folder(folder: Path, name: str, data: bytes) -> None:
  from mmjax.data import Folder, Reading

  (folder / name).write_bytes(data)
  source = Folder(str(folder), captions_file=name).open("all", Reading(on_bad_record="skip"))
  for index in range(len(source)):
    source[index]


def _picture(kind: str) -> bytes:
  data = io.BytesIO()
  Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(9, 12, 3)).save(data, kind)
  return data.getvalue()


def _tar(kind: int) -> bytes:
  long = "d/" * 60 + "k" if kind != tarfile.USTAR_FORMAT else "d/k"
  members = [
    ("a.png", _picture("PNG")), ("a.txt", b"a caption"), (f"{long}.jpg", _picture("JPEG")),
    (f"{long}.json", b'{"caption": ["x", "y"]}'), ("b.pkl", b"cos\nsystem\n(S'false'\ntR."),
  ]  # fmt: skip
  return _archive(kind, members)


def _archive(kind: int, members: list[tuple[str, bytes]]) -> bytes:
  data = io.BytesIO()
  with tarfile.open(fileobj=data, mode="w", format=kind) as archive:
    for name, content in members:
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return data.getvalue()


def _sound(form: str, codec: str) -> bytes:
  import soundfile

  data = io.BytesIO()
  soundfile.write(data, 0.1 * np.sin(np.arange(2000) / 5), 8000, format=form, subtype=codec)
  return data.getvalue()
