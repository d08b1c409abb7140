"""Reader of GGUF, llama.cpp's format, for Llama-like models: quantised weights, settings and the tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, Table, check, joined, linear, norm
from mmjax.interop.pretrained import save
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.interop.tensors import Entry
from mmjax.interop.tokenizer_files import TOKENIZER, TOKENIZER_CONFIG
from mmjax.interop.transformers_causal import llama_config
from mmjax.models.gpt import GptConfig

_BLOCK = r"^decoder/block_(\d+)/"
_CONTROL = 3  # type of a token that stands for no text
_SETTINGS = "llama."
_WORDS = "tokenizer.ggml."


class GgufFile:
  """Tensors of a GGUF file by name, as a `TensorFile`. Quantised numbers are read as float32.

  Args:
    path: the file.
  Raises: InteropError: the library gguf is not installed, or the file is damaged.

  Attributes:
    settings: settings of the model and of its tokenizer.
  """

  def __init__(self, path: Path):
    try:
      import gguf
    except ImportError as error:
      raise InteropError(f"{path} needs the library gguf: pip install gguf") from error
    self.path = path
    self._dequantize = gguf.dequantize
    try:
      reader = gguf.GGUFReader(path)
      self.settings: Mapping[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError, MemoryError) as error:
      raise InteropError(f"{path} is not in the format GGUF, or it is damaged: {error}") from error
    self._tensors = {tensor.name: tensor for tensor in reader.tensors}
    self.entries = {
      name: Entry(tuple(int(side) for side in reversed(tensor.shape)), np.dtype(np.float32))
      for name, tensor in self._tensors.items()
    }

  def read(self, name: str) -> np.ndarray:
    """Numbers of one tensor."""
    tensor = self._tensors[name]
    numbers = self._dequantize(tensor.data, tensor.tensor_type)
    return np.asarray(numbers, np.float32).reshape(self.entries[name].shape)


def rules(config: GptConfig) -> tuple[Rule, ...]:
  """Mapping rules of Llama in GGUF, which pairs neighbouring features of queries and keys."""
  c = config.text
  heads = {"query": c.num_heads, "key": c.key_heads or c.num_heads}
  return joined(
    *(
      (
        Rule(
          f"{_BLOCK}attention/{name}/kernel$",
          rf"blk.\1.attn_{name[0]}.weight",
          "(h pair two) i -> i (h two pair)",
          (("h", number), ("two", 2)),
        ),
      )
      for name, number in heads.items()
    ),
    linear(f"{_BLOCK}attention/value", r"blk.\1.attn_v"),
    linear(f"{_BLOCK}attention/out", r"blk.\1.attn_output"),
    *(linear(f"{_BLOCK}mlp/{name}", rf"blk.\1.ffn_{name}") for name in ("gate", "up", "down")),
    norm(f"{_BLOCK}norm1", r"blk.\1.attn_norm"),
    norm(f"{_BLOCK}norm2", r"blk.\1.ffn_norm"),
    norm("^decoder/norm", "output_norm"),
    (
      Rule("^words/token_embedding$", "token_embd.weight"),
      Rule("^words/output_embedding$", "output.weight"),
    ),
  )


def read_config(file: GgufFile) -> GptConfig:
  """Read the configuration of a Llama-like model.

  Raises: InteropError: the model is another one, or has a setting that mmjax does not support.
  """
  settings = Fields(dict(file.settings), str(file.path))
  settings.only("general.architecture", "llama", None)
  model = _part(file, _SETTINGS)
  words = _part(file, _WORDS)
  num_heads = model.integer("attention.head_count")
  key_heads = model.integer("attention.head_count_kv", num_heads)
  config = llama_config(
    width=model.integer("embedding_length"),
    mlp_dim=model.integer("feed_forward_length"),
    depth=model.integer("block_count"),
    num_heads=num_heads,
    key_heads=None if key_heads == num_heads else key_heads,
    norm_epsilon=float(f"{model.number('attention.layer_norm_rms_epsilon'):.6g}"),  # 1e-5 is stored in float32
    rotary_temperature=model.number("rope.freq_base", 10_000.0),
    max_length=model.integer("context_length"),
    vocab_size=model.integer("vocab_size"),
    tied="output.weight" not in file.entries,
    eos_id=words.integer("eos_token_id", least=0),
    pad_id=words.integer("padding_token_id", words.integer("eos_token_id", least=0), least=0),
  )
  dim = config.text.width // num_heads
  model.only("rope.dimension_count", dim, dim)
  model.finish({})
  return config


def _part(file: GgufFile, prefix: str) -> Fields:
  values = {name.removeprefix(prefix): value for name, value in file.settings.items() if name.startswith(prefix)}
  return Fields(values, f"{file.path}: {prefix}*")


def _list(fields: Fields, name: str) -> list[Any]:
  value = fields.get(name)
  if not isinstance(value, list):
    raise fields.wrong(name, "a list")
  return value


def write_tokenizer(file: GgufFile, folder: Path) -> None:
  """Write SmolLM's tokenizer as transformers' files. Raises InteropError if the tokenizer is another one."""
  words = _part(file, _WORDS)
  for name, supported in (("model", "gpt2"), ("pre", "smollm")):
    words.only(name, supported, None)
  for name in ("add_space_prefix", "add_bos_token"):
    words.only(name, False, False)
  tokens, merges, kinds = (_list(words, name) for name in ("tokens", "merges", "token_type"))
  if len(kinds) != len(tokens):
    raise words.wrong("token_type", f"a list of {len(tokens)} numbers, as there are tokens")
  model = models.BPE(
    {token: number for number, token in enumerate(tokens)}, [tuple(pair.split(" ", 1)) for pair in merges]
  )
  engine = tokenizers.Tokenizer(model)
  engine.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
  )
  engine.decoder = decoders.ByteLevel()
  engine.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL])
  engine.save(str(folder / TOKENIZER))
  names = (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
  record = {f"{ours}_token": tokens[words.integer(f"{theirs}_token_id", least=0)] for ours, theirs in names}
  record["tokenizer_class"] = "PreTrainedTokenizerFast"
  if "tokenizer.chat_template" in file.settings:
    record["chat_template"] = file.settings["tokenizer.chat_template"]
  words.finish({})
  (folder / TOKENIZER_CONFIG).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_checkpoint(path: Path, folder: Path) -> None:
  """Write a GGUF file of a Llama-like model as a checkpoint of transformers, with its tokenizer.

  Args:
    path: the file.
    folder: folder to write into.
  Raises: InteropError: the model or its tokenizer is of another kind, or the file is damaged.
  """
  file = GgufFile(path)
  config = read_config(file)
  table = Table(rules(config), flat_shapes(config))
  check(file, table, ())
  folder.mkdir(parents=True, exist_ok=True)
  write_tokenizer(file, folder)
  params = unflatten({name: place.read(file) for name, place in table.places.items()})
  save(config.build(), params, folder, "transformers")
