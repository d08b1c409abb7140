"""Read and write other projects' weights."""

from mmjax.interop.errors import InteropError
from mmjax.interop.formats import FORMATS
from mmjax.interop.preprocess import Preprocess
from mmjax.interop.pretrained import Pretrained, load, load_pretrained, save
from mmjax.interop.restore import Report, restore
from mmjax.interop.siglip_tokenizer import SiglipTokenizer
from mmjax.interop.tokenizer import PretrainedTokenizer

__all__ = [
  "FORMATS",
  "InteropError",
  "Preprocess",
  "Pretrained",
  "PretrainedTokenizer",
  "Report",
  "SiglipTokenizer",
  "load",
  "load_pretrained",
  "restore",
  "save",
]
