"""CTranslate2's model.bin: a small Whisper in its format becomes the same checkpoint, and hostile files are bounded."""

import json
import struct

import numpy as np
import pytest
import tokenizers

from mmjax import interop
from mmjax.interop.ctranslate2_file import CTranslate2File
from mmjax.interop.ctranslate2_whisper import write_checkpoint
from mmjax.interop.errors import InteropError
from mmjax.interop.source import open_source
from mmjax.interop.speech_settings import read_speech_generation
from mmjax.models import GenerateConfig
from tests.interop.hostile import refused_unallocated

NUMBERS = {"f4": 0, "i1": 1, "i2": 2, "i4": 3, "f2": 4}
SCALARS = {"decoder/activation": ("i1", 3), "decoder/pre_norm": ("i1", 1), "decoder/num_heads": ("i2", 2)}
SCALARS |= {"decoder/alibi": ("i1", 0), "decoder/scale_embeddings": ("i1", 0), "encoder/num_heads": ("i2", 2)}
SCALARS |= {"decoder/start_from_zero_embedding": ("i1", 0), "decoder/alignment_heads": ("i2", 1)}
TOKENS = ["a", "b", "Ġ", "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
SAME = {"decoder/projection/weight": "decoder/embeddings/weight"}


def whisper():
  """Tensors of a Whisper of width 8 with one layer in each stack."""
  rng = np.random.default_rng(0)
  numbers = lambda *shape: rng.standard_normal(shape).astype("f2")
  found = {name: np.array(value, kind) for name, (kind, value) in SCALARS.items()}
  found |= {"encoder/conv1/weight": numbers(8, 5, 3), "encoder/conv2/weight": numbers(8, 8, 3)}
  found |= {"encoder/conv1/bias": numbers(8), "encoder/conv2/bias": numbers(8)}
  found |= {"encoder/position_encodings/encodings": numbers(50, 8), "decoder/embeddings/weight": numbers(6, 8)}
  found |= {"decoder/position_encodings/encodings": numbers(7, 8)}

  def norm(name):
    found[f"{name}/gamma"], found[f"{name}/beta"] = numbers(8), numbers(8)

  def linear(name, size, width=8):
    found[f"{name}/weight"], found[f"{name}/bias"] = numbers(size, width), numbers(size)

  for stack in ("encoder", "decoder"):
    layer = f"{stack}/layer_0"
    for name in (f"{stack}/layer_norm", f"{layer}/self_attention/layer_norm", f"{layer}/ffn/layer_norm"):
      norm(name)
    linear(f"{layer}/self_attention/linear_0", 24)
    found[f"{layer}/self_attention/linear_0/bias"][8:16] = 0
    linear(f"{layer}/self_attention/linear_1", 8)
    linear(f"{layer}/ffn/linear_0", 12)
    linear(f"{layer}/ffn/linear_1", 8, 12)
  norm("decoder/layer_0/attention/layer_norm")
  linear("decoder/layer_0/attention/linear_0", 8)
  linear("decoder/layer_0/attention/linear_1", 16)
  found["decoder/layer_0/attention/linear_1/bias"][:8] = 0
  linear("decoder/layer_0/attention/linear_2", 8)
  return found


def packed(tensors, *, version=6, kind="WhisperSpec", same=SAME):
  text = lambda name: struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
  parts = [struct.pack("<I", version), text(kind), struct.pack("<II", 3, len(tensors))]
  for name, tensor in tensors.items():
    parts += [text(name), struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)]
    parts += [struct.pack("<BI", NUMBERS[tensor.dtype.str[1:]], tensor.nbytes), tensor.tobytes()]
  parts += [struct.pack("<I", len(same)), *(text(name) for pair in same.items() for name in pair)]
  return b"".join(parts)


@pytest.fixture
def folder(tmp_path):
  """A package's folder, without model.bin."""
  engine = tokenizers.Tokenizer(tokenizers.models.BPE({token: n for n, token in enumerate(TOKENS)}, []))
  engine.add_special_tokens(TOKENS[3:])
  engine.save(str(tmp_path / "tokenizer.json"))
  (tmp_path / "config.json").write_text(json.dumps({"suppress_ids": [1], "suppress_ids_begin": [2, 3]}))
  return tmp_path


def test_every_tensor_is_in_the_checkpoint(folder):
  tensors = whisper()
  (folder / "model.bin").write_bytes(packed(tensors))
  write_checkpoint(folder / "model.bin", folder / "out")
  found = interop.load_pretrained(folder / "out")
  audio, text = found.model.config.audio, found.model.config.text
  assert (audio.width, audio.mel_bins, audio.frames, text.max_length, text.vocab_size) == (8, 5, 100, 7, 6)
  assert (audio.hidden, text.hidden, text.eos_id, found.model.config.begin_id) == (12, 12, 3, 4)
  names = iter(np.split(tensors["decoder/layer_0/self_attention/linear_0/weight"], 3))
  block = found.params["decoder"]["block_0"]
  for name in ("query", "key", "value"):
    np.testing.assert_array_equal(block["attention"][name]["kernel"], next(names).T.astype("f4"))
  key, value = np.split(tensors["decoder/layer_0/attention/linear_1/weight"], 2)
  np.testing.assert_array_equal(block["cross_attention"]["key"]["kernel"], key.T.astype("f4"))
  np.testing.assert_array_equal(
    block["cross_attention"]["value"]["bias"], tensors["decoder/layer_0/attention/linear_1/bias"][8:].astype("f4")
  )
  assert value.any()
  settings = read_speech_generation(open_source(folder / "out"))
  assert settings.prompt() == (4, 5) and (settings.suppress, settings.suppress_first) == ((1,), (2, 3))
  assert found.transcriber.decode([0, 2, 1, 3, 4]) == "a b"


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"decoder/activation": np.array(0, "i1")}, "decoder/activation is 0; mmjax supports only 3"),
    ({"decoder/pre_norm": np.array([1], "i1")}, "no tensor 'decoder/pre_norm' with 0 axes"),
    ({"decoder/alibi": np.array(1, "i1")}, "decoder/alibi is 1"),
    ({"decoder/layer_0/ffn/linear_0/weight_scale": np.zeros(12, "f4")}, "fc1.weight_scale'"),
    ({"decoder/layer_0/ffn/linear_0/weight": np.zeros((12, 8), "i1")}, "int8, not floating-point"),
    ({"encoder/layer_0/other/weight": np.zeros((12, 8), "f2")}, "which mmjax does not know in a Whisper"),
    ({"decoder/layer_norm/beta": np.zeros(9, "f2")}, r"has shape \[9\]"),
    ({"decoder/layer_0/self_attention/linear_0/bias": np.ones(24, "f2")}, "has a bias of keys"),
    ({"decoder/num_heads": np.array(3, "i2")}, "must be divisible by num_heads=3"),
    ({"decoder/embeddings/weight": np.zeros((51_865, 8), "f2")}, "not one of Whisper's models for English"),
  ],
)
def test_what_transformers_does_not_have_is_refused(change, said, folder):
  (folder / "model.bin").write_bytes(packed(whisper() | change))
  with pytest.raises(InteropError, match=said):
    write_checkpoint(folder / "model.bin", folder / "out")
  assert not (folder / "out/model.safetensors").exists()


def test_another_model_and_scores_apart_are_refused(folder):
  for settings in (dict(kind="TransformerSpec"), dict(same={})):
    (folder / "model.bin").write_bytes(packed(whisper(), **settings))
    with pytest.raises(InteropError, match="mmjax reads Whisper"):
      write_checkpoint(folder / "model.bin", folder / "out")


def test_a_file_that_is_cut_or_goes_on_is_refused(tmp_path):
  whole, path = packed({"x": np.zeros((2, 3), "f4"), "y": np.array(1, "i1")}), tmp_path / "model.bin"
  path.write_bytes(whole)
  assert set(CTranslate2File(path).entries) == {"x", "y"}
  for data in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
    path.write_bytes(data)
    with pytest.raises(InteropError, match="not CTranslate2's model.bin of version 6, or it is damaged"):
      CTranslate2File(path)


CLAIMS = {
  "a version": packed({}, version=7),
  "many tensors": packed({})[: -4 - 4] + struct.pack("<I", 2**32 - 1),
  "a huge shape": packed({"x": np.zeros(1, "f4")}).replace(
    struct.pack("<BIBI", 1, 1, 0, 4), struct.pack("<BIBI", 1, 2**30, 0, 2**32 - 4)
  ),
  "sizes whose product is no number of 64 bits": packed({"x": np.zeros((1,) * 8, "f4")}).replace(
    struct.pack("<8I", *(1,) * 8), struct.pack("<8I", *(2**32 - 1,) * 8)
  ),
  "many axes": packed({"x": np.zeros(1, "f4")}).replace(struct.pack("<BI", 1, 1), struct.pack("<BI", 255, 1)),
  "an unknown dtype": packed({"x": np.zeros(1, "f4")}).replace(struct.pack("<BI", 0, 4), struct.pack("<BI", 9, 4)),
  "a name twice": packed({"x": np.zeros(1, "i1"), "y": np.zeros(1, "i1")}).replace(b"y\0", b"x\0"),
  "a name that is no text": packed({"x": np.zeros(1, "i1")}).replace(b"x\0", b"\xff\0"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_nothing_is_allocated_for_what_a_header_claims(case, tmp_path):
  (tmp_path / "model.bin").write_bytes(CLAIMS[case])
  refused_unallocated(lambda: CTranslate2File(tmp_path / "model.bin"), "model.bin", "damaged")


def test_random_bytes_are_refused_or_read(tmp_path):
  rng, whole, path = np.random.default_rng(0), packed(whisper()), tmp_path / "model.bin"
  for _ in range(300):
    data = bytearray(whole)
    for place in rng.integers(0, len(data), 3):
      data[place] = rng.integers(256)
    path.write_bytes(data)
    try:
      file = CTranslate2File(path)
    except InteropError:
      continue
    assert sum(file.read(name).nbytes for name in file.entries) < len(data)


def test_a_long_sound_is_cut_into_windows_and_its_texts_are_joined(folder):
  """A window is 1 s here. The text of each is the same whatever is transcribed with it."""
  (folder / "model.bin").write_bytes(packed(whisper()))
  write_checkpoint(folder / "model.bin", folder / "out")
  found = interop.load_pretrained(folder / "out")
  noise = np.random.default_rng(1).standard_normal(40_000).astype("f4") / 3
  pieces = [(noise[start : start + 16_000], 16_000) for start in (0, 16_000, 32_000)]
  words = GenerateConfig(max_new_tokens=3, suppress=(2, 3, 4, 5))
  parts = found.transcribe(pieces, batch_size=2, config=words)
  long, short = found.transcribe([(noise, 16_000), pieces[2]], batch_size=2, config=words)
  assert long == " ".join(parts) and short == parts[2] and all(len(part) == 3 for part in parts)
  with pytest.raises(TypeError, match="put a single sound in a list"):
    found.transcribe("a.wav")
  with pytest.raises(InteropError, match="no language 'fr'"):
    found.transcribe(pieces, language="fr")
  assert found.transcribe([]) == []
