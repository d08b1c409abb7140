"""Media of tars: the extensions of files that are read, of those that are not, and the first bytes of both."""

import dataclasses
import functools
import re
from collections.abc import Mapping

from mmjax.data.sound.headers import EXTENSIONS as SOUNDS
from mmjax.data.video.headers import EXTENSIONS as VIDEOS

FILE, TXT, JSON, PICKLE, UNREAD = "file", ".txt", ".json", "pickle", "unread"
"""Roles of a member: the file of a record, its caption as text or JSON, and what is never read or not read."""
PICKLES = ("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "dill")
UNREAD_CAPTIONS = (
  *("alt", "cap", "caption", "captions", "desc", "description", "jsn", "prompt", "tags", "text", "title", "transcript"),
)


@dataclasses.dataclass(frozen=True)
class Medium:
  """Files of one medium.

  Attributes:
    name: name of the medium, and of the field of a record with the content of its file.
    what: the name with its article.
    extensions: extensions of the formats that are decoded.
    unread: extensions of formats that are not.
    magic: pattern of the first bytes of either.
    usual: extensions to convert to, for errors.
  """

  name: str
  what: str
  extensions: tuple[str, ...]
  unread: tuple[str, ...]
  magic: re.Pattern[bytes]
  usual: str

  @functools.cached_property
  def roles(self) -> Mapping[str, str]:
    """Role of a member by its extension."""
    return {
      **dict.fromkeys(self.unread + UNREAD_CAPTIONS, UNREAD),
      **dict.fromkeys(self.extensions, FILE),
      **dict.fromkeys(PICKLES, PICKLE),
      "txt": TXT,
      "json": JSON,
    }


IMAGE = Medium(
  "image",
  "an image",
  (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
    *("ppm", "pgm", "pbm", "pnm", "pfm", "avif", "avifs"),
  ),
  (
    *("arw", "cr2", "cr3", "dcm", "dds", "dng", "emf", "eps", "exr", "fits", "hdr", "heic", "heif", "hif", "icns"),
    *("ico", "j2c", "j2k", "jp2", "jpc", "jpf", "jpx", "jxl", "jxr", "nef", "orf", "pcx", "psd", "qoi", "raf", "ras"),
    *("raw", "rgb", "rgba", "rw2", "sgi", "svg", "svgz", "tga", "wdp", "wmf", "xbm", "xcf", "xpm"),
  ),
  re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|BM....\0\0\0\0|....ftyp(avi|hei|mif|jp2|crx)|"
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51|\xff\x0a|\0\0\0\x0cJXL |P[1-6]\s\d|(<\?xml.*)?<svg|8BPS|qoif",
    re.DOTALL,
  ),
  ".jpg or .png",
)
SOUND = Medium(
  "sound",
  "a sound",
  tuple(extension.removeprefix(".") for extension in SOUNDS),
  (
    *("8svx", "aac", "ac3", "aif", "aifc", "aiff", "alac", "amr", "ape", "au", "caf", "dff", "dsf", "gsm", "m4a"),
    *("m4b", "mid", "midi", "mka", "mp1", "mp2", "mpc", "oga", "opus", "ra", "rf64", "sln", "snd", "spx", "sph", "tta"),
    *("ulaw", "voc", "w64", "wma", "wv"),
  ),
  re.compile(
    rb"RIF[FX]....WAVE|RF64|fLaC|OggS|ID3|\xff[\xf2\xf3\xfa\xfb]|FORM....AIF|\.snd|caff|#!AMR|MThd|wvpk|"
    rb"....ftypM4A|NIST_1A",
    re.DOTALL,
  ),
  ".flac or .wav",
)
VIDEO = Medium(
  "video",
  "a video",
  tuple(extension.removeprefix(".") for extension in VIDEOS),
  (
    "3g2",
    "3gp",
    "apng",
    "asf",
    "avi",
    "f4v",
    "flv",
    "m2ts",
    "mpeg",
    "mpg",
    "mts",
    "mxf",
    "ogm",
    "ogv",
    "ts",
    "vob",
    "wmv",
  ),
  re.compile(
    rb"....ftyp|\x1a\x45\xdf\xa3|GIF8[79]a|RIFF....(WEBP|AVI )|\0\0\x01[\xb3\xba]|FLV\x01|\x30\x26\xb2\x75|OggS",
    re.DOTALL,
  ),
  ".mp4 or .webm",
)
MEDIA: Mapping[str, Medium] = {medium.name: medium for medium in (IMAGE, SOUND, VIDEO)}
"""Media by name."""
