"""Tokenizer files of transformers in a folder: settings, vocabulary and added tokens."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from mmjax.data.errors import DataError
from mmjax.data.text.tokenizer import read_vocabulary
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS, ADDED_TOKENS, SENTENCE = "special_tokens_map.json", "added_tokens.json", "sentence_bert_config.json"
SPIECE, VOCAB, MERGES, WORDS = "spiece.model", "vocab.json", "merges.txt", "vocab.txt"
BPE_SPIECE = "sentencepiece.bpe.model"
_VOCABULARIES = (VOCAB, MERGES, WORDS, SPIECE, BPE_SPIECE, "tokenizer.model")
FILES = (TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS, *_VOCABULARIES, ADDED_TOKENS)
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_OF_MODEL = {"clip": "CLIPTokenizer", "bert": "BertTokenizer", "blip": "BertTokenizer", "siglip": "SiglipTokenizer"}
_OF_MODEL |= {"siglip2": "Siglip2Tokenizer", "roberta": "RobertaTokenizer", "xlm-roberta": "XLMRobertaTokenizer"}
_OF_MODEL |= {"mpnet": "MPNetTokenizer", "distilbert": "BertTokenizer", "t5": "T5Tokenizer", "mt5": "T5Tokenizer"}
_OF_MODEL |= {"gpt2": "GPT2Tokenizer", "opt": "GPT2Tokenizer", "blip-2": "GPT2Tokenizer"}
_OF_MODEL |= {"whisper": "WhisperTokenizer"}


@dataclasses.dataclass(frozen=True)
class TokenizerFiles:
  """Tokenizer files of a folder.

  Attributes:
    folder: the folder.
    record: tokenizer_config.json, with special_tokens_map.json where that has precedence.
    engine: tokenizer.json as it stands; None if there is none.
    content: tokenizer.json as an object; empty if there is none.
    kind: name of transformers' class, without "Fast"; "" if the files name none.
    version: version of transformers that config.json names, or "".
  """

  folder: Path
  record: Fields
  engine: tokenizers.Tokenizer | None
  content: Mapping[str, Any]
  kind: str
  version: str

  def has(self, *names: str) -> bool:
    """True if the folder has all of these files."""
    return all((self.folder / name).is_file() for name in names)

  def token(self, name: str, default: str | None = None) -> tokenizers.AddedToken | None:
    """Special token of a name such as "pad_token"; None if there is none."""
    value = self.record.get(name)
    if value is None and name not in self.record.values:
      value = default
    if value is None:
      return None
    return _token(value, f"{self.record.where}: {name}", special=True)

  def added(self) -> list[tokenizers.AddedToken]:
    """Added tokens in the order of their numbers."""
    if "added_tokens_decoder" in self.record:
      values = dict(self.record.object("added_tokens_decoder").values)
    else:
      values = {str(id): text for text, id in self._older().items()}
      values |= {str(token.get("id")): token for token in self.content.get("added_tokens") or ()}
    try:
      return [_token(values[id], f"{self.record.where}: added token {id}") for id in sorted(values, key=int)]
    except ValueError as error:
      raise InteropError(f"{self.record.where}: added_tokens_decoder: {error}") from error

  def extra(self) -> list[tokenizers.AddedToken]:
    """Special tokens without a name of their own."""
    found: list[tokenizers.AddedToken] = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
      values = self.record.get(name) or []
      if not isinstance(values, list):
        raise self.record.wrong(name, "a list of tokens")
      found += [_token(value, f"{self.record.where}: {name}", special=True) for value in values]
    return found

  def _older(self) -> Mapping[str, Any]:
    """added_tokens.json of early folders: number of each token."""
    path = self.folder / ADDED_TOKENS
    return read_json(path).values if path.is_file() else {}


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
  """Read the tokenizer files of a folder. Raises InteropError if one is damaged or names code of its own."""
  record = _record(folder)
  record.only("auto_map", None, None)  # code of the checkpoint's author, which mmjax does not run
  config = read_json(folder / "config.json") if (folder / "config.json").is_file() else Fields({}, "config.json")
  kind = record.get("tokenizer_class") or config.get("tokenizer_class") or _OF_MODEL.get(str(config.get("model_type")))
  if config.get("model_type") == "siglip2":  # transformers then uses its class, whatever class was saved
    kind = "Siglip2Tokenizer"
  engine, content = None, {}
  if (folder / TOKENIZER).is_file():
    try:
      engine = read_vocabulary(folder / TOKENIZER)
    except DataError as error:
      raise InteropError(str(error)) from error
    content = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
  version = config.get("transformers_version")
  name = kind.removesuffix("Fast") if isinstance(kind, str) and kind != "PreTrainedTokenizerFast" else str(kind or "")
  return TokenizerFiles(folder, record, engine, content, name, version if isinstance(version, str) else "")


def _record(folder: Path) -> Fields:
  """tokenizer_config.json. special_tokens_map.json has precedence, unless the first one lists the added tokens."""
  path, special = folder / TOKENIZER_CONFIG, folder / SPECIAL_TOKENS
  record = read_json(path) if path.is_file() else Fields({}, str(path))
  if "added_tokens_decoder" in record.values or not special.is_file():
    return record
  return Fields({**record.values, **read_json(special).values}, f"{path} (with {SPECIAL_TOKENS})")


def _token(value: Any, where: str, *, special: bool = False) -> tokenizers.AddedToken:
  """Token that is written as a string or as an object."""
  if isinstance(value, str) and value:
    return tokenizers.AddedToken(value, special=special, normalized=not special)
  if isinstance(value, dict) and isinstance(value.get("content"), str) and value["content"]:
    flags = {n: bool(value[n]) for n in ("single_word", "lstrip", "rstrip", "normalized") if n in value}
    return tokenizers.AddedToken(value["content"], special=bool(value.get("special", special)), **flags)
  raise InteropError(f"{where} is {value!r}, but must be a token")
