"""Tokenizers on SentencePiece vocabularies, as transformers' classes build them: T5, XLM-RoBERTa and NLLB."""

import base64
from collections.abc import Sequence

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from mmjax.interop.errors import InteropError
from mmjax.interop.sentencepiece_file import read_sentencepiece
from mmjax.interop.tokenizer_building import missing, required, token_id, with_tokens
from mmjax.interop.tokenizer_files import BPE_SPIECE, SPIECE, TOKENIZER, TokenizerFiles

T5_DEFAULTS = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
PIECE_DEFAULTS = T5_DEFAULTS | {"bos_token": "<s>", "sep_token": "</s>", "cls_token": "<s>", "mask_token": "<mask>"}

Pieces = list[tuple[str, float]]


def t5(files: TokenizerFiles) -> tokenizers.Tokenizer:
  """T5's class, also for mT5 and for SigLIP in open_clip. A folder may have spiece.model alone."""
  number = files.record.integer("extra_ids", 100, least=0)
  if files.engine is None and files.has(SPIECE):
    pieces, characters = _from_spiece(files, SPIECE)
    pieces = [*pieces, *((f"<extra_id_{n}>", 0.0) for n in range(number - 1, -1, -1))]
  else:
    pieces, characters = _unigram(files)
  engine = _engine(files, pieces, characters, unknown=2)
  named = any(name in files.record.values for name in ("additional_special_tokens", "extra_special_tokens"))
  with_tokens(engine, files, T5_DEFAULTS, [] if named else [f"<extra_id_{n}>" for n in range(number)])
  if required(files, "eos_token", T5_DEFAULTS) != "</s>":
    raise files.record.wrong("eos_token", "'</s>', which T5's class writes")
  return _between(engine, ["$A", "</s>"])


def xlm_roberta(files: TokenizerFiles) -> tokenizers.Tokenizer:
  """XLM-RoBERTa's class. A folder may have sentencepiece.bpe.model alone, whose pieces it counts in another order."""
  if files.engine is None and files.has(BPE_SPIECE):
    pieces, characters = _from_spiece(files, BPE_SPIECE)
    first = [required(files, name, PIECE_DEFAULTS) for name in ("bos_token", "pad_token", "eos_token", "unk_token")]
    last = required(files, "mask_token", PIECE_DEFAULTS)
    pieces = [*((token, 0.0) for token in first), *pieces[3:], (last, 0.0)]
  else:
    pieces, characters = _unigram(files)
  prefix = files.record.flag("add_prefix_space", True)
  engine = _engine(files, pieces, characters, unknown=3, prefix=prefix)
  with_tokens(engine, files, PIECE_DEFAULTS)
  begin, end = (required(files, name, PIECE_DEFAULTS) for name in ("bos_token", "eos_token"))
  return _between(engine, [begin, "$A", end])


def nllb(files: TokenizerFiles) -> tokenizers.Tokenizer:
  """NLLB's class: a text stands between the code of its language and the end token."""
  model = files.content.get("model") or {}
  if model.get("type") != "BPE" or files.engine is None:
    raise missing(files)
  unknown = required(files, "unk_token", PIECE_DEFAULTS)
  try:
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
    engine = tokenizers.Tokenizer(models.BPE(model["vocab"], merges, unk_token=unknown, fuse_unk=True))
    characters = _characters(files)
  except Exception as error:  # the tokenizers library raises plain Exception
    raise _damaged(files, error) from error
  if characters:
    spaces = normalizers.Replace(tokenizers.Regex(" {2,}"), " ")
    engine.normalizer = normalizers.Sequence([normalizers.Precompiled(characters), spaces])
  engine.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
  engine.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
  with_tokens(engine, files, PIECE_DEFAULTS, flags={"mask_token": {"lstrip": True, "normalized": True}})
  language, end = files.record.text("src_lang", "eng_Latn"), required(files, "eos_token", PIECE_DEFAULTS)
  if engine.token_to_id(language) is None:
    raise files.record.wrong("src_lang", f"the code of a language that {TOKENIZER} has as a token")
  legacy = files.record.flag("legacy_behaviour", False)
  return _between(engine, ["$A", end, language] if legacy else [language, "$A", end])


def _engine(
  files: TokenizerFiles, pieces: Pieces, characters: bytes, *, unknown: int, prefix: bool = True
) -> tokenizers.Tokenizer:
  """Unigram model over words that a "▁" marks. `prefix`: the first word of a text has one too."""
  try:
    engine = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=unknown))
    if characters:
      engine.normalizer = normalizers.Precompiled(characters)
  except Exception as error:  # the tokenizers library raises plain Exception
    raise _damaged(files, error) from error
  scheme = "always" if prefix else "never"
  spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=True)
  engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
  engine.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme, split=True)
  return engine


def _unigram(files: TokenizerFiles) -> tuple[Pieces, bytes]:
  """Pieces and map of characters of tokenizer.json."""
  model = files.content.get("model") or {}
  if model.get("type") != "Unigram" or files.engine is None:
    raise missing(files)
  try:
    return [(piece, score) for piece, score in model["vocab"]], _characters(files)
  except (ValueError, TypeError, KeyError) as error:
    raise _damaged(files, error) from error


def _characters(files: TokenizerFiles) -> bytes:
  normalizer = files.content.get("normalizer") or {}
  for step in normalizer.get("normalizers", [normalizer]):
    if step.get("precompiled_charsmap"):
      return base64.b64decode(step["precompiled_charsmap"])
  return b""


def _from_spiece(files: TokenizerFiles, name: str) -> tuple[Pieces, bytes]:
  found = read_sentencepiece(files.folder / name)
  if not found.unigram:
    raise InteropError(
      f"{files.folder / name} is not a unigram model, which {files.kind} has; with transformers, "
      "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes a tokenizer.json"
    )
  return found.pieces, found.characters


def _damaged(files: TokenizerFiles, error: Exception) -> InteropError:
  return InteropError(f"{files.folder}: the vocabulary of its tokenizer cannot be read: {error}")


def _between(engine: tokenizers.Tokenizer, template: Sequence[str]) -> tokenizers.Tokenizer:
  """Put special tokens around a text. "$A" is the text."""
  tokens = [(token, token_id(engine, token)) for token in dict.fromkeys(template) if token != "$A"]
  engine.post_processor = processors.TemplateProcessing(single=list(template), special_tokens=tokens)
  return engine
