"""Small shards for tests: pictures whose colour is their number."""

import io
import tarfile

import numpy as np
from PIL import Image

from mmjax.data.records import Record
from mmjax.data.shards.writer import write_shards


def picture(number: int, kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
  data = io.BytesIO()
  Image.new("RGB", size, (number % 256, number // 256, 100)).save(data, kind)
  return data.getvalue()


def records(numbers) -> list[Record]:
  return [Record(image=picture(n), captions={"name": [f"number {n}"]}, id=str(n), concept=n) for n in numbers]


def shards(directory, numbers, *, format="webdataset", per_shard=10):
  return list(write_shards(records(numbers), directory, format=format, per_shard=per_shard))


def number_of(record) -> int:
  """What `records` made it of."""
  red, green, _ = np.asarray(Image.open(io.BytesIO(record["image"])))[0, 0].tolist()
  assert record["captions"]["name"][0] == f"number {red + 256 * green}"
  return red + 256 * green


def tar_of(path, members, *, format=tarfile.USTAR_FORMAT):
  """A tar with members (name, bytes), or TarInfos of links, devices and the like."""
  with tarfile.open(path, "w", format=format) as tar:
    for member in members:
      if isinstance(member, tarfile.TarInfo):
        tar.addfile(member)
      else:
        info = tarfile.TarInfo(member[0])
        info.size = len(member[1])
        tar.addfile(info, io.BytesIO(member[1]))
  return path
