"""Tokenizer of a published model, with the padding, the length and the text clean-up of its library."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from jaxtyping import Int32

from mmjax.data.text.tokenizer import Tokenizer
from mmjax.interop import without_effect
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.siglip_tokenizer import SiglipTokenizer, load_siglip_tokenizer
from mmjax.interop.text_cleaning import cleaned
from mmjax.interop.tokenizer_classes import DEFAULTS, build, open_clip_engine
from mmjax.interop.tokenizer_files import (
  BPE_SPIECE,
  FILES,
  MERGES,
  SENTENCE,
  SPIECE,
  TOKENIZER,
  TOKENIZER_CONFIG,
  VOCAB,
  WORDS,
  TokenizerFiles,
  read_tokenizer_files,
)


@dataclasses.dataclass(frozen=True)
class PretrainedTokenizer:
  """Tokenizer of strings to ids [n, max_length].

  Equals the other library's tokenizer with padding="max_length" and truncation.

  Attributes:
    engine: tokenizer with truncation and padding enabled.
    max_length: tokens per text.
    clean: clean-up of the texts (see mmjax.interop.text_cleaning).
    zeroed: a token that is written as 0. None: there is none.
    rows: tokens that the model has. None: unknown.
  """

  engine: tokenizers.Tokenizer
  max_length: int
  clean: str = ""
  zeroed: int | None = None
  rows: int | None = None

  def __call__(self, strings: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    if isinstance(strings, str):
      raise TypeError("a tokenizer takes a sequence of strings; put a single string in a list")
    texts = [cleaned(text, self.clean) for text in strings]
    ids = np.array([encoding.ids for encoding in self.engine.encode_batch(texts)], np.int32)
    if self.zeroed is not None:
      ids[ids == self.zeroed] = 0
    if self.rows is not None and ids.size and (largest := int(np.max(ids))) >= self.rows:
      raise InteropError(
        f"a text has the token {self.engine.id_to_token(largest)!r} of number {largest}, and the model has {self.rows} "
        "tokens: the tokenizer was extended after the model. Take the token out of its files, or leave it out of texts"
      )
    return ids.reshape(-1, self.max_length)


def load_tokenizer(
  folder: Path, max_length: int, *, open_clip: Fields | None = None, whole: bool = False, pad_id: int | None = None
) -> PretrainedTokenizer | SiglipTokenizer:
  """Load the tokenizer of a folder.

  Args:
    folder: folder of the checkpoint.
    max_length: context length of the model.
    open_clip: text_cfg of an open_clip configuration; None for other formats.
    whole: True if `max_length` was asked for. The files' own limits (model_max_length) then have no effect.
    pad_id: number of the token that a language model is padded with, at the end, whatever the files say. None: the
      files decide.
  Returns: the tokenizer.
  Raises: InteropError: the folder has no tokenizer, or a setting is not supported.
  """
  return make_tokenizer(read_tokenizer_files(folder), max_length, open_clip=open_clip, whole=whole, pad_id=pad_id)


def make_tokenizer(
  files: TokenizerFiles,
  max_length: int,
  *,
  open_clip: Fields | None = None,
  whole: bool = False,
  pad_id: int | None = None,
) -> PretrainedTokenizer | SiglipTokenizer:
  """Make a tokenizer from its files. Arguments and errors as for `load_tokenizer`.

  Args:
    files: the tokenizer's files.
    max_length, open_clip, whole, pad_id: as for `load_tokenizer`.
  """
  folder = files.folder
  if open_clip is not None and not open_clip.get("hf_tokenizer_name"):
    return _open_clip_own(files, max_length, open_clip)
  if open_clip is not None and not any(map(files.has, (TOKENIZER, SPIECE, BPE_SPIECE, VOCAB, WORDS))):
    name = open_clip.get("hf_tokenizer_name")
    raise InteropError(
      f"{folder} has no {TOKENIZER}. Its configuration names the tokenizer {name!r}. With transformers: "
      f"AutoTokenizer.from_pretrained({name!r}).save_pretrained(folder)"
    )
  longest = _longest(files.record) if open_clip is None else _open_clip_length(open_clip, max_length)
  own = max_length if whole else min(max_length, longest)
  if files.kind == "SiglipTokenizer" and files.has(SPIECE):
    if open_clip is not None:
      raise files.record.wrong("tokenizer_class", "another one: open_clip's clean-up is not supported with it")
    return load_siglip_tokenizer(folder, files.record, own)
  engine, clean, zeroed = build(files), _slow_clean(files), None
  if open_clip is not None:
    clean, zeroed = _open_clip_settings(open_clip, files, engine)
  pad = _pad_id(files, engine) if pad_id is None else pad_id
  truncation, padding = files.content.get("truncation") or {}, files.content.get("padding") or {}
  sides = {"left": "left", "right": "right"}
  cut = files.record.choice("truncation_side", sides, str(truncation.get("direction", "right")).lower())
  gemma = "left" if files.kind in ("GemmaTokenizer", "Siglip2Tokenizer") else "right"
  side = files.record.choice("padding_side", sides, str(padding.get("direction", gemma)).lower())
  side = side if pad_id is None else "right"
  engine.enable_truncation(own if whole else min(own, _sentence_length(folder)), direction=cut)
  engine.enable_padding(direction=side, pad_id=pad, pad_token=engine.id_to_token(pad) or "", length=own)
  engine.encode_special_tokens = files.record.flag("split_special_tokens", False)
  files.record.finish(without_effect.TOKENIZER)
  return PretrainedTokenizer(engine, own, clean, zeroed)


def _longest(record: Fields) -> int:
  """Tokens per text that tokenizer_config.json allows. Without a limit it is a huge number."""
  value = record.get("model_max_length", record.get("max_len"))
  if value is None:
    return 2**24
  if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
    raise record.wrong("model_max_length", "a number of tokens")
  return int(min(value, 2**24))


def _open_clip_length(text: Fields, max_length: int) -> int:
  """Tokens per text in open_clip. The text towers of transformers have more positions."""
  return text.integer("context_length", 77 if "hf_model_name" in text else max_length)


def _sentence_length(folder: Path) -> int:
  """Tokens per text that sentence-transformers allows."""
  if not (folder / SENTENCE).is_file():
    return 2**24
  record = read_json(folder / SENTENCE)
  record.only("do_lower_case", False, False)
  length = record.integer("max_seq_length") if "max_seq_length" in record else 2**24
  record.finish(without_effect.SENTENCE)
  return length


def _slow_clean(files: TokenizerFiles) -> str:
  """Clean-up of transformers' slow CLIPTokenizer. A folder names it if it has its files and its version only."""
  slow = files.kind == "CLIPTokenizer" and files.engine is None and files.has(VOCAB, MERGES)
  return "repair" if slow and files.version.startswith(("2.", "3.", "4.")) else ""


def _open_clip_own(files: TokenizerFiles, max_length: int, text: Fields) -> PretrainedTokenizer:
  """open_clip's own tokenizer, which reads nothing of tokenizer_config.json."""
  kwargs = text.object("tokenizer_kwargs")
  clean = kwargs.choice("clean", _CLEAN, "lower")
  kwargs.finish({})
  text.only("tokenizer_mode", None, None)
  engine = open_clip_engine(files)
  engine.enable_truncation(max_length)
  engine.enable_padding(pad_id=0, pad_token="!", length=max_length)
  return PretrainedTokenizer(engine, max_length, clean)


def _open_clip_settings(text: Fields, files: TokenizerFiles, engine: tokenizers.Tokenizer) -> tuple[str, int | None]:
  """Read the settings of a tokenizer of transformers in open_clip: its clean-up, and the token that is written as 0."""
  kwargs = text.object("tokenizer_kwargs")
  text.only("tokenizer_mode", None, None)
  clean, zeroed = kwargs.choice("clean", _CLEAN, "whitespace"), None
  if kwargs.flag("strip_sep_token", False):
    token = files.token("sep_token", DEFAULTS.get(files.kind, {}).get("sep_token"))
    zeroed = None if token is None else engine.token_to_id(token.content)
    if zeroed is None:
      raise kwargs.wrong("strip_sep_token", "false: the tokenizer has no sep_token")
  kwargs.finish({})
  return clean, zeroed


_CLEAN = {"lower": "lower", "whitespace": "whitespace", "canonicalize": "canonicalize"}


def _pad_id(files: TokenizerFiles, engine: tokenizers.Tokenizer) -> int:
  default = DEFAULTS.get(files.kind, {}).get("pad_token") or (files.content.get("padding") or {}).get("pad_token")
  pad = files.token("pad_token", default)
  if pad is None:
    raise InteropError(f"{files.record.where}: pad_token is missing, so texts cannot be padded; add it to the file")
  found = engine.token_to_id(pad.content)
  assert found is not None  # it was added to the tokenizer
  return found


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
