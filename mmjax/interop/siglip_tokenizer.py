"""SigLIP's tokenizer, as in transformers: big_vision's text clean-up, then a SentencePiece model (spiece.model)."""

import dataclasses
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from mmjax.interop import without_effect
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.tokenizer_files import SPIECE

_SPACE = "▁"  # SentencePiece's sign for a space
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclasses.dataclass(frozen=True)
class SiglipTokenizer:
  """Tokenizer of strings to ids [n, max_length].

  Equals transformers' SiglipTokenizer with padding="max_length" and truncation.

  Attributes:
    model: a sentencepiece.SentencePieceProcessor.
    max_length: tokens per text.
    special: special tokens. They are split off before any other step.
    unknown, end, pad: the unknown token, the end token and the padding token.
    lower: True if texts are converted to lower case.
    cut, side: side on which texts are truncated, and on which they are padded: "left" or "right".
  """

  model: Any
  max_length: int
  special: tuple[str, ...]
  unknown: str
  end: str
  pad: str
  lower: bool
  cut: str = "right"
  side: str = "right"

  def __call__(self, strings: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    if isinstance(strings, str):
      raise TypeError("a tokenizer takes a sequence of strings; put a single string in a list")
    pad, rows = self.model.piece_to_id(self.pad), [self._ids(text) for text in strings]
    missing = [[pad] * (self.max_length - len(row)) for row in rows]
    padded = [more + row if self.side == "left" else row + more for row, more in zip(rows, missing, strict=True)]
    return np.array(padded, np.int32).reshape(-1, self.max_length)

  def _ids(self, text: str) -> list[int]:
    pieces = self._pieces(_SPACE + text.replace(_SPACE, " "))
    if len(pieces) > 1 and pieces[0] == _SPACE and pieces[1] in self.special:
      pieces = pieces[1:]
    most = self.max_length - 1
    kept = pieces[max(0, len(pieces) - most) :] if self.cut == "left" else pieces[:most]
    ids = [self.model.piece_to_id(piece) for piece in kept]
    end = self.model.piece_to_id(self.end)
    return ids if ids and ids[-1] == end else [*ids, end]

  def _pieces(self, text: str) -> list[str]:
    """Split a text into special tokens and the pieces of the text between them.

    Special tokens may be set to strip the text beside them. This makes no difference, because that text is stripped in
    any case.
    """
    names = "|".join(map(re.escape, sorted(self.special, key=len, reverse=True)))
    pieces: list[str] = []
    for place, part in enumerate(re.split(f"({names})", text)):
      pieces += [part] if place % 2 else self._encoded(part)
    return pieces

  def _encoded(self, text: str) -> list[str]:
    """Pieces of a text without special tokens.

    SentencePiece removes a leading "▁". To keep it, the text is encoded behind the unknown token, whose pieces are then
    removed.
    """
    text = (text.lower() if self.lower else text).translate(_NO_PUNCTUATION)
    text = re.sub(r"\s+", " ", text).strip()
    length = len(self.model.encode(self.unknown))
    pieces = self.model.encode(self.unknown + text, out_type=str)
    return pieces[length:] if len(pieces) >= length else pieces


def load_siglip_tokenizer(folder: Path, record: Fields, max_length: int) -> SiglipTokenizer:
  """Load the spiece.model of a folder.

  Args:
    folder: folder of the checkpoint.
    record: its tokenizer_config.json.
    max_length: tokens per text.
  Returns: the tokenizer.
  Raises: InteropError: the file is damaged, a setting is not supported, or sentencepiece is not installed.
  """
  try:
    import sentencepiece
  except ImportError as error:
    raise InteropError(f"{folder / SPIECE} needs sentencepiece: pip install 'mmjax[interop]'") from error
  path = folder / SPIECE
  for name, supported in (("sp_model_kwargs", {}), ("legacy", True), ("split_special_tokens", False)):
    record.only(name, supported, supported)
  for name in ("additional_special_tokens", "extra_special_tokens"):
    if record.get(name):
      raise record.wrong(name, "empty, because SigLIP has only the tokens of its spiece.model")
  cut, side = (record.choice(name, {"left": "left", "right": "right"}, "right") for name in _SIDES)
  try:
    data = path.read_bytes()
    model = sentencepiece.SentencePieceProcessor(model_proto=data) if data else None
  except (OSError, RuntimeError) as error:
    raise InteropError(f"{path} is not a SentencePiece model: {error}; download it again") from error
  if model is None:
    raise InteropError(f"{path} is not a SentencePiece model: it is empty; download it again")
  names = {name: _token(record, name, default) for name, default in _SPECIAL.items()}
  special = tuple(dict.fromkeys(names.values()))
  for token in record.object("added_tokens_decoder").values.values():
    if _content(token) not in special:
      raise InteropError(f"{record.where}: added_tokens_decoder has {_content(token)!r}, which is not one of {special}")
    if isinstance(token, dict) and token.get("single_word"):
      raise InteropError(f"{record.where}: added_tokens_decoder: single_word of {_content(token)!r} is not supported")
  for token in special:
    if model.id_to_piece(model.piece_to_id(token)) != token:
      raise InteropError(f"{record.where}: the special token {token!r} is not in the vocabulary of {path}")
  unknown, end, pad = names.values()
  lower = record.flag("do_lower_case", True)
  record.finish(without_effect.TOKENIZER)
  return SiglipTokenizer(model, max_length, special, unknown, end, pad, lower, cut, side)


_SIDES = ("truncation_side", "padding_side")
_SPECIAL = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "</s>"}


def _token(record: Fields, name: str, default: str) -> str:
  token = _content(record.get(name) or default)
  if not token:
    raise record.wrong(name, "a token")
  return token


def _content(token: Any) -> str:
  """Text of a token that is written as a string or as an AddedToken."""
  content = token.get("content") if isinstance(token, dict) else token
  return content if isinstance(content, str) else ""
