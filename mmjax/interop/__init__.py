"""Read and write checkpoints of other libraries: transformers, open_clip, OpenAI's CLIP and big_vision.

Terms in this package: `ours` is a parameter, tensor layout or configuration of mmjax. `theirs` is its counterpart in
the other library. Documentation calls the counterpart "external".
"""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.interop.errors import InteropError
  from mmjax.interop.export import export_run
  from mmjax.interop.formats import FORMATS
  from mmjax.interop.packages import PACKAGES, from_package
  from mmjax.interop.peft import load_adapters, save_adapters
  from mmjax.interop.preprocess import Preprocess
  from mmjax.interop.pretrained import Pretrained, load, load_pretrained, save
  from mmjax.interop.pretrained_tokenizer import PretrainedTokenizer
  from mmjax.interop.restoring import Report, restore
  from mmjax.interop.siglip_tokenizer import SiglipTokenizer
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "errors": ["InteropError"],
      "export": ["export_run"],
      "formats": ["FORMATS"],
      "packages": ["PACKAGES", "from_package"],
      "peft": ["load_adapters", "save_adapters"],
      "preprocess": ["Preprocess"],
      "pretrained": ["Pretrained", "load", "load_pretrained", "save"],
      "restoring": ["Report", "restore"],
      "siglip_tokenizer": ["SiglipTokenizer"],
      "pretrained_tokenizer": ["PretrainedTokenizer"],
    },
  )

__all__ = [
  "FORMATS",
  "PACKAGES",
  "InteropError",
  "Preprocess",
  "Pretrained",
  "PretrainedTokenizer",
  "Report",
  "SiglipTokenizer",
  "export_run",
  "from_package",
  "load",
  "load_adapters",
  "load_pretrained",
  "restore",
  "save",
  "save_adapters",
]
