"""Tokenizer of a published model, with the padding, the length and the text clean-up of its library."""

import dataclasses
import html
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int32

from mmjax.data.errors import DataError
from mmjax.data.text.tokenizer import Tokenizer, read_vocabulary
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.siglip_tokenizer import SPIECE, SiglipTokenizer, load_siglip_tokenizer

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
FILES = (
  TOKENIZER,
  TOKENIZER_CONFIG,
  "special_tokens_map.json",
  "vocab.json",
  "merges.txt",
  "vocab.txt",
  SPIECE,
  "tokenizer.model",
  "added_tokens.json",
)
# Classes of transformers that tokenizer.json describes completely. SigLIP's classes also change the text before it.
_WHOLE = {"CLIPTokenizer", "CLIPTokenizerFast", "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", None}
_WHOLE |= {"TokenizersBackend"}
_SIGLIP = ("SiglipTokenizer", "SiglipTokenizerFast")
_GEMMA = ("GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer")


@dataclasses.dataclass(frozen=True)
class PretrainedTokenizer:
  """Tokenizer of strings to ids [n, max_length].

  Equals the other library's tokenizer with padding="max_length" and truncation.

  Attributes:
    engine: tokenizer with truncation and padding enabled.
    max_length: tokens per text.
    clean: open_clip's clean-up of the text: "lower" (repair it and convert it to lower case), "whitespace" (repair it),
      "canonicalize" (as "lower", and remove punctuation), or "" (none).
  """

  engine: tokenizers.Tokenizer
  max_length: int
  clean: str = ""

  def __call__(self, strings: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    if isinstance(strings, str):
      raise TypeError("a tokenizer takes a sequence of strings; put a single string in a list")
    texts = [_cleaned(text, self.clean) for text in strings]
    return np.array([encoding.ids for encoding in self.engine.encode_batch(texts)], np.int32).reshape(
      -1, self.max_length
    )


def load_tokenizer(
  folder: Path, max_length: int, *, open_clip: Fields | None = None
) -> PretrainedTokenizer | SiglipTokenizer:
  """Load the tokenizer of a folder from tokenizer.json (SigLIP: spiece.model) and tokenizer_config.json.

  Args:
    folder: folder of the checkpoint.
    max_length: context length of the model.
    open_clip: text_cfg of an open_clip configuration; None for other formats.
  Returns: the tokenizer.
  Raises: InteropError: the folder has no tokenizer, or a setting is not supported.
  """
  path, beside = folder / TOKENIZER, folder / TOKENIZER_CONFIG
  record = read_json(beside) if beside.is_file() else Fields({}, str(path))
  if record.values.get("tokenizer_class") in _SIGLIP and (folder / SPIECE).is_file():
    return load_siglip_tokenizer(folder, record, max_length)
  if not path.is_file():
    others = [name for name in FILES if (folder / name).is_file()]
    raise InteropError(
      f"{folder} has no {TOKENIZER}" + (f" (only {', '.join(others)})" if others else "") + "; with transformers, "
      "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes one"
    )
  try:
    engine = read_vocabulary(path)
  except DataError as error:
    raise InteropError(str(error)) from error
  gemma = record.values.get("tokenizer_class") in _GEMMA
  if gemma:
    _as_gemma(engine, lowercase=record.values["tokenizer_class"] == "Siglip2Tokenizer" or _is_siglip2(folder))
  elif record.values.get("tokenizer_class") not in _WHOLE:
    raise InteropError(
      f"{record.where}: tokenizer_class is {record.values['tokenizer_class']!r}, which does more than {TOKENIZER}. "
      "Make the ids with transformers and give them to encode_text"
    )
  pad, clean = _pad_token(record, "<pad>" if gemma else "<|endoftext|>"), ""
  if open_clip is not None:
    clean, native = _open_clip_clean(open_clip)
    pad = 0 if native else pad
  pad_id = pad if isinstance(pad, int) else engine.token_to_id(pad)
  if pad_id is None:
    raise InteropError(f"{record.where}: the padding token {pad!r} is not in the vocabulary of {path}")
  engine.enable_truncation(max_length)
  side = record.choice("padding_side", {"right": "right", "left": "left"}, "left" if gemma else "right")
  engine.enable_padding(direction=side, pad_id=pad_id, pad_token=engine.id_to_token(pad_id) or "", length=max_length)
  engine.encode_special_tokens = record.flag("split_special_tokens", False)
  return PretrainedTokenizer(engine, max_length, clean)


def _as_gemma(engine: tokenizers.Tokenizer, *, lowercase: bool) -> None:
  """Set the normalizer and the pre-tokenizer as transformers' Gemma classes do. They ignore those of the file.

  `lowercase`: SigLIP 2's class also converts the text to lower case, as in training.
  """
  spaces = tokenizers.normalizers.Replace(" ", "▁")
  lowered = tokenizers.normalizers.Sequence([tokenizers.normalizers.Lowercase(), spaces])
  engine.normalizer = lowered if lowercase else spaces
  engine.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "merged_with_previous")


def _is_siglip2(folder: Path) -> bool:
  """True for a SigLIP 2 model. AutoTokenizer then uses SigLIP 2's tokenizer class, whatever class was saved."""
  path = folder / "config.json"
  return path.is_file() and read_json(path).values.get("model_type") == "siglip2"


def _open_clip_clean(text: Fields) -> tuple[str, bool]:
  """Read open_clip's text clean-up. The second result is True for open_clip's own tokenizer, which pads with 0."""
  kwargs = text.object("tokenizer_kwargs")
  kwargs.known({"clean"})
  text.only("tokenizer_mode", None, None)
  native = "hf_tokenizer_name" not in text
  choices = {"lower": "lower", "whitespace": "whitespace", "canonicalize": "canonicalize"}
  return kwargs.choice("clean", choices, "lower" if native else "whitespace"), native


def _pad_token(record: Fields, default: str) -> str | int:
  token = record.values.get("pad_token", default)
  if isinstance(token, dict):  # an AddedToken
    token = token.get("content")
  if not isinstance(token, str):
    raise record.wrong("pad_token", "a token")
  return token


def _cleaned(text: str, clean: str) -> str:
  if not clean:
    return text
  try:
    import ftfy
  except ImportError as error:
    raise InteropError("open_clip repairs texts with ftfy before tokenizing: pip install 'mmjax[interop]'") from error
  text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
  if clean == "canonicalize":
    import string

    text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
  text = " ".join(text.split()).strip()
  return text if clean == "whitespace" else text.lower()


def copy_tokenizer(source: Path, target: Path) -> None:
  """Copy the tokenizer files of a folder, if it has any."""
  for name in FILES:
    if (source / name).is_file():
      shutil.copyfile(source / name, target / name)


def export_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
  """Write a tokenizer of mmjax for transformers.

  tokenizer.json gets the tokens at the beginning and the end of a text. tokenizer_config.json gets padding and length.
  """
  tokenizer.save(folder)
  engine = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
  config = tokenizer.config
  special = {id: engine.id_to_token(id) for id in tokenizer.special_ids}
  begin = "" if tokenizer.begin_id is None else f"{special[tokenizer.begin_id]} "
  pair = "" if config.sep_token is None else f"{begin}$A {config.sep_token} $B:1 {config.eos_token}:1"
  engine.post_processor = tokenizers.processors.TemplateProcessing(
    single=f"{begin}$A {config.eos_token}",
    pair=pair or f"{begin}$A $B:1 {config.eos_token}:1",
    special_tokens=[(token, id) for id, token in special.items()],
  )
  (folder / TOKENIZER).write_text(engine.to_str(), encoding="utf-8")
  record: dict[str, Any] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": config.max_length,
    "padding_side": "right",
    "truncation_side": "right",
    "pad_token": config.pad_token,
    "eos_token": config.eos_token,
    "bos_token": config.bos_token,
    "cls_token": config.cls_token,
    "sep_token": config.sep_token,
    "mask_token": config.mask_token,
    "split_special_tokens": True,
    "clean_up_tokenization_spaces": False,
  }
  (folder / TOKENIZER_CONFIG).write_text(json.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")
