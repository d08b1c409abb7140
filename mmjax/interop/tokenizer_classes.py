"""Tokenizers as transformers' classes and open_clip build them. Each takes only the vocabulary from the files."""

import functools
import gzip
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from mmjax.interop.errors import InteropError
from mmjax.interop.tokenizer_building import missing, required, token_id, with_tokens
from mmjax.interop.tokenizer_files import MERGES, NAMED, TOKENIZER, VOCAB, WORDS, TokenizerFiles
from mmjax.interop.tokenizer_pieces import PIECE_DEFAULTS, T5_DEFAULTS, nllb, t5, xlm_roberta

_CLIP_DEFAULTS = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
_CLIP_DEFAULTS |= {"pad_token": "<|endoftext|>"}
_BERT_DEFAULTS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
_BERT_DEFAULTS |= {"mask_token": "[MASK]"}
_GEMMA_DEFAULTS = {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
_GEMMA_DEFAULTS |= {"mask_token": "<mask>"}
_ROBERTA_DEFAULTS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
_ROBERTA_DEFAULTS |= {"cls_token": "<s>", "pad_token": "<pad>", "mask_token": "<mask>"}
_GPT2_DEFAULTS = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
_MPNET_DEFAULTS = _ROBERTA_DEFAULTS | {"unk_token": "[UNK]"}
_MPNET_FLAGS = {name: {"normalized": True, "lstrip": name == "mask_token"} for name in NAMED}
DEFAULTS: Mapping[str, Mapping[str, str]] = {
  "CLIPTokenizer": _CLIP_DEFAULTS,
  "BertTokenizer": _BERT_DEFAULTS,
  "GemmaTokenizer": _GEMMA_DEFAULTS,
  "Siglip2Tokenizer": _GEMMA_DEFAULTS,
  "DistilBertTokenizer": _BERT_DEFAULTS,
  "MPNetTokenizer": _MPNET_DEFAULTS,
  "RobertaTokenizer": _ROBERTA_DEFAULTS,
  "GPT2Tokenizer": _GPT2_DEFAULTS,
  "WhisperTokenizer": _GPT2_DEFAULTS,
  "XLMRobertaTokenizer": PIECE_DEFAULTS,
  "NllbTokenizer": PIECE_DEFAULTS,
  "T5Tokenizer": T5_DEFAULTS,
}
"""Special tokens of each class where the files name none."""

_Merges = tuple[dict[str, int], list[tuple[str, str]]]
"""Numbers of the tokens, and the pairs that are merged."""
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"


def build(files: TokenizerFiles) -> tokenizers.Tokenizer:
  """Build the tokenizer of the class that the files name. Padding and truncation are not set yet.

  Raises: InteropError: the class is not supported, or the folder lacks the vocabulary.
  """
  if files.kind in _WHOLE:
    if files.engine is None:
      raise missing(files)
    return with_tokens(files.engine, files, {})
  if files.kind not in _BUILDERS:
    raise InteropError(
      f"{files.record.where}: tokenizer_class is {files.kind!r}, which does more than {TOKENIZER}. "
      "Make the ids with transformers and give them to encode_text"
    )
  return _BUILDERS[files.kind](files)


def _clip(files: TokenizerFiles) -> tokenizers.Tokenizer:
  unknown = required(files, "unk_token", _CLIP_DEFAULTS)
  vocabulary, merges = _merges(files)
  model = models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=unknown)
  engine = tokenizers.Tokenizer(model)
  spaces = normalizers.Replace(tokenizers.Regex(r"\s+"), " ")
  engine.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
  engine.pre_tokenizer = _split(rf"<\|startoftext\|>|<\|endoftext\|>|{_WORDS}")
  with_tokens(engine, files, _CLIP_DEFAULTS)
  begin, end = (required(files, name, _CLIP_DEFAULTS) for name in ("bos_token", "eos_token"))
  engine.post_processor = processors.TemplateProcessing(
    single=[begin, "$A", end],
    special_tokens=[(token, token_id(engine, token)) for token in dict.fromkeys((begin, end))],
  )
  return engine


def _merges(files: TokenizerFiles) -> _Merges:
  """CLIP's vocabulary from tokenizer.json, or from vocab.json and merges.txt."""
  model = files.content.get("model") or {}
  try:
    if model.get("type", "BPE") == "BPE" and "merges" in model:
      return model["vocab"], [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in model["merges"]]
    if files.has(VOCAB, MERGES) and not model:
      return models.BPE.read_file(str(files.folder / VOCAB), str(files.folder / MERGES))
  except Exception as error:  # the tokenizers library raises plain Exception
    raise InteropError(f"{files.folder}: its vocabulary cannot be read: {error}") from error
  raise missing(files)


def _bert(
  files: TokenizerFiles,
  *,
  defaults: Mapping[str, str] = _BERT_DEFAULTS,
  flags: Mapping[str, Mapping[str, bool]] | None = None,
) -> tokenizers.Tokenizer:
  """WordPiece. `defaults` and `flags`: special tokens of the class (see `with_tokens`)."""
  unknown = required(files, "unk_token", defaults)
  engine = tokenizers.Tokenizer(models.WordPiece(vocab=_words(files), unk_token=unknown))
  record = files.record
  engine.normalizer = normalizers.BertNormalizer(
    clean_text=True,
    handle_chinese_chars=record.flag("tokenize_chinese_chars", True),
    strip_accents=record.flag("strip_accents", False) if "strip_accents" in record else None,
    lowercase=record.flag("do_lower_case", True),
  )
  engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  with_tokens(engine, files, defaults, flags=flags)
  begin, end = (required(files, name, defaults) for name in ("cls_token", "sep_token"))
  engine.post_processor = processors.TemplateProcessing(
    single=[begin, "$A", end],
    special_tokens=[(token, token_id(engine, token)) for token in dict.fromkeys((begin, end))],
  )
  return engine


def _words(files: TokenizerFiles) -> dict[str, int]:
  """BERT's vocabulary from tokenizer.json, or from vocab.txt."""
  model = files.content.get("model") or {}
  if isinstance(model.get("vocab"), dict):
    return model["vocab"]
  if not model and files.has(WORDS):
    lines = (files.folder / WORDS).read_text(encoding="utf-8").split("\n")
    return {line: number for number, line in enumerate(lines[:-1] if not lines[-1] else lines)}
  raise missing(files)


def _byte_level(files: TokenizerFiles, defaults: Mapping[str, str]) -> tokenizers.Tokenizer:
  """Byte-level BPE, as GPT-2's. Of tokenizer.json, the classes take the vocabulary and the merges."""
  vocabulary, merges = _merges(files)
  model = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
  engine = tokenizers.Tokenizer(model)
  engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=files.record.flag("add_prefix_space", False))
  engine.decoder = decoders.ByteLevel()
  return with_tokens(engine, files, defaults)


def _whisper(files: TokenizerFiles) -> tokenizers.Tokenizer:
  """Byte-level BPE. A text begins with the tokens of the begin, of language and task if any, and of no times."""
  engine, record = _byte_level(files, _GPT2_DEFAULTS), files.record
  begin = ["<|startoftranscript|>"]
  for name in ("language", "task"):
    begin += [f"<|{record.text(name).lower()}|>"] if name in record else []
  begin += [] if record.flag("predict_timestamps", False) else ["<|notimestamps|>"]
  end = required(files, "eos_token", _GPT2_DEFAULTS)
  for token in begin:
    if engine.token_to_id(token) is None:
      raise InteropError(
        f"{files.folder}: its vocabulary has no token {token!r}, with which {record.where} begins every text; a "
        'language is written as its code, such as "en"'
      )
  engine.post_processor = processors.TemplateProcessing(
    single=[*begin, "$A", end],
    special_tokens=[(token, token_id(engine, token)) for token in dict.fromkeys((*begin, end))],
  )
  return engine


def _roberta(files: TokenizerFiles) -> tokenizers.Tokenizer:
  engine = _byte_level(files, _ROBERTA_DEFAULTS)
  begin, end = (required(files, name, _ROBERTA_DEFAULTS) for name in ("cls_token", "sep_token"))
  engine.post_processor = processors.TemplateProcessing(
    single=[begin, "$A", end],
    special_tokens=[(token, token_id(engine, token)) for token in dict.fromkeys((begin, end))],
  )
  return engine


def _gpt2(files: TokenizerFiles) -> tokenizers.Tokenizer:
  """Byte-level BPE. The last step is that of tokenizer.json; without that file, the settings decide."""
  vocabulary, merges = _merges(files)
  model = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
  engine = tokenizers.Tokenizer(model)
  engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=files.record.flag("add_prefix_space", False))
  engine.decoder = decoders.ByteLevel()
  with_tokens(engine, files, _GPT2_DEFAULTS)
  if files.engine is not None:
    engine.post_processor = files.engine.post_processor
    return engine
  begin, end = (
    [required(files, name, _GPT2_DEFAULTS)] if files.record.flag(f"add_{name}", False) else []
    for name in ("bos_token", "eos_token")
  )
  special = [(token, token_id(engine, token)) for token in dict.fromkeys((*begin, *end))]
  engine.post_processor = processors.TemplateProcessing(single=[*begin, "$A", *end], special_tokens=special)
  return engine


def _gemma(files: TokenizerFiles, *, lowercase: bool) -> tokenizers.Tokenizer:
  """The classes ignore the normalizer and the pre-tokenizer of the file. SigLIP 2's converts texts to lower case."""
  if files.engine is None:
    raise missing(files)
  engine = files.engine
  spaces = normalizers.Replace(" ", "▁")
  engine.normalizer = normalizers.Sequence([normalizers.Lowercase(), spaces]) if lowercase else spaces
  engine.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
  return with_tokens(engine, files, _GEMMA_DEFAULTS)


def open_clip_engine(files: TokenizerFiles) -> tokenizers.Tokenizer:
  """open_clip's own tokenizer (SimpleTokenizer), from CLIP's vocabulary.

  The vocabulary is that of the folder (tokenizer.json, vocab.json and merges.txt, or the file of OpenAI's CLIP), or the
  one in the installed package open_clip.
  """
  own = files.engine is not None or files.has(VOCAB, MERGES)
  vocabulary, merges = _merges(files) if own else _openai_merges(files.folder)
  ids = []
  for theirs, ours in (("<|startoftext|>", "<start_of_text>"), ("<|endoftext|>", "<end_of_text>")):
    if theirs not in vocabulary:
      raise InteropError(f"{files.folder}: its vocabulary is not CLIP's, which open_clip's own tokenizer has")
    ids.append((ours, vocabulary[theirs]))
  renamed = {token: id for token, id in vocabulary.items() if not token.startswith("<|")} | dict(ids)
  engine = tokenizers.Tokenizer(models.BPE(vocab=renamed, merges=merges, end_of_word_suffix="</w>"))
  engine.pre_tokenizer = _split(f"(?i){_WORDS}", again=False)
  engine.add_special_tokens([token for token, _ in ids])
  begin, end = (token for token, _ in ids)
  engine.post_processor = processors.TemplateProcessing(single=[begin, "$A", end], special_tokens=ids)
  return engine


def _openai_merges(folder: Path) -> _Merges:
  """CLIP's vocabulary from the file of OpenAI's CLIP, which open_clip's package has too."""
  spec = importlib.util.find_spec("open_clip")
  places = [folder, *(Path(place) for place in (spec.submodule_search_locations or ()) if spec)] if spec else [folder]
  found = [place / BPE_FILE for place in places if (place / BPE_FILE).is_file()]
  if not found:
    raise InteropError(
      f"{folder} has no tokenizer files. Its model has open_clip's own tokenizer, whose vocabulary is in the package "
      f"open_clip: pip install open_clip_torch, or copy {BPE_FILE} from there into the folder"
    )
  try:
    return _read_openai_merges(found[0])
  except (OSError, EOFError, ValueError) as error:
    raise InteropError(f"{found[0]} is damaged ({error}); download it again") from error


@functools.cache
def _read_openai_merges(path: Path) -> _Merges:
  with gzip.open(path) as file:
    lines = file.read().decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
  merges = [(first, second) for first, second in map(str.split, lines)]
  shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that are written as themselves; then the rest
  alphabet = [chr(byte) for byte in shown] + [chr(256 + n) for n in range(256 - len(shown))]
  tokens = [*alphabet, *(byte + "</w>" for byte in alphabet), *map("".join, merges)]
  return {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}, merges


def _split(pattern: str, *, again: bool = True) -> pre_tokenizers.PreTokenizer:
  """Split a text into words and write their bytes. `again`: words are split once more, by GPT-2's pattern."""
  split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="removed", invert=True)
  return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=again)])


_WHOLE = ("", "PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")
_BUILDERS: Mapping[str, Callable[[TokenizerFiles], tokenizers.Tokenizer]] = {
  "CLIPTokenizer": _clip,
  "BertTokenizer": _bert,
  "GemmaTokenizer": functools.partial(_gemma, lowercase=False),
  "Siglip2Tokenizer": functools.partial(_gemma, lowercase=True),
  "DistilBertTokenizer": _bert,
  "MPNetTokenizer": functools.partial(_bert, defaults=_MPNET_DEFAULTS, flags=_MPNET_FLAGS),
  "RobertaTokenizer": _roberta,
  "GPT2Tokenizer": _gpt2,
  "WhisperTokenizer": _whisper,
  "XLMRobertaTokenizer": xlm_roberta,
  "NllbTokenizer": nllb,
  "T5Tokenizer": t5,
}
