"""transformers' T5 and ours write alike, both ways, from random weights."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from tests.interop.references import assert_same_params, assert_same_tensors, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

SIZE = dict(d_model=16, d_kv=6, d_ff=24, num_layers=1, num_heads=3, vocab_size=50, decoder_start_token_id=0)
# transformers cannot generate with more blocks in the decoder than in the encoder.
NEWER = SIZE | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_layers=2, num_decoder_layers=1)
FEW = dict(relative_attention_num_buckets=8, relative_attention_max_distance=9, layer_norm_epsilon=1e-3)
CASES = {
  "1.0": ("T5", SIZE | dict(num_layers=2)),
  "1.1": ("T5", NEWER | FEW | dict(decoder_start_token_id=4)),
  "mt5": ("MT5", NEWER | dict(d_kv=8, num_heads=2)),
}
READ = np.random.default_rng(0).integers(2, 50, (3, 11)).astype(np.int32)
READ[0, 7:], READ[1, :2] = 0, 0
IDS = np.random.default_rng(1).integers(2, 50, (3, 14)).astype(np.int32)
IDS[:, 0] = 0


def made(case):
  """With scores of their own, except in T5 1.0."""
  kind, fields = CASES[case]
  model = getattr(transformers, f"{kind}ForConditionalGeneration")(getattr(transformers, f"{kind}Config")(**fields))
  if case != "1.0":
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(50, 16))
  randomize(model.eval())
  return model


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  @functools.cache
  def write(case):
    folder, model = tmp_path_factory.mktemp("t5"), made(case)
    model.save_pretrained(folder)
    return folder, model

  return write


def logits(model):
  read, ids = torch.tensor(READ).long(), torch.tensor(IDS).long()
  with torch.no_grad():
    return model(read, attention_mask=(read != 0).long(), decoder_input_ids=ids).logits.numpy()


def texts(model, **settings):
  read = torch.tensor(READ).long()
  return model.generate(read, attention_mask=(read != 0).long(), do_sample=False, **settings).numpy()


def _decoded(model, read, ids):
  return model.decode(ids, model.encode({"text": read})["text"])


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path, written):
  folder, theirs = written(case)
  found = interop.load_pretrained(folder)
  model, params, expected = found.model, found.params, logits(theirs)
  words = model.config.text
  assert (words.tied, words.scaled_logits) == ((True, True) if case == "1.0" else (False, False))
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  ours = jax.jit(lambda p: model.apply({"params": p}, READ, IDS, method=_decoded))(params)
  np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
  interop.save(model, params, tmp_path)
  assert_same_tensors(folder / "model.safetensors", tmp_path / "model.safetensors")
  kind = transformers.T5ForConditionalGeneration
  again, info = kind.from_pretrained(tmp_path, output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  np.testing.assert_allclose(logits(again.eval()), expected, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(texts(again, max_new_tokens=5), texts(theirs, max_new_tokens=5))
  back, same = interop.load(tmp_path)
  assert back.config == model.config
  assert_same_params(same, params)


@pytest.mark.parametrize("case", ["1.0", "1.1"])
def test_greedy_texts_are_the_same(case, tmp_path, written):
  """From the cache, word for word; one ends early. Without an own length, it is transformers'."""
  theirs = written(case)[1]
  theirs.generation_config.eos_token_id = None
  end = int(texts(theirs, max_new_tokens=9)[0, 3])
  theirs.generation_config.eos_token_id = end
  theirs.save_pretrained(tmp_path)
  found = interop.load_pretrained(tmp_path)
  model, config = found.model, found.generation(1)
  assert model.config.text.eos_id == end and config == GenerateConfig(max_new_tokens=20)
  context = jax.jit(lambda p: model.apply({"params": p}, {"text": READ}, method="encode"))(found.params)["text"]
  prompt = jnp.full((3, 1), model.config.begin_id, jnp.int32)
  mine, yours = np.asarray(generate(model, found.params, prompt, context, config=config).ids), texts(theirs)
  np.testing.assert_array_equal(mine[:, : yours.shape[1]], yours)
  assert (mine[0, 4:] == 0).all() and (mine[:, yours.shape[1] :] == 0).all()


def test_the_tokenizer_of_its_folder(tmp_path, written):
  import tokenizers

  shutil.copytree(written("1.0")[0], tmp_path / "t5")
  pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0), ("cat", -1.5), ("s", -3.0)]
  engine = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
  engine.save(str(tmp_path / "t5/tokenizer.json"))
  settings = dict(tokenizer_class="T5Tokenizer", extra_ids=0, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
  (tmp_path / "t5/tokenizer_config.json").write_text(json.dumps(settings))
  ids = interop.load_pretrained(tmp_path / "t5", max_length=6).tokenizer(["a cats", "x"])
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "t5")
  assert ids.tolist() == theirs(["a cats", "x"], padding="max_length", max_length=6)["input_ids"]


def test_files_of_transformers_4(tmp_path, written):
  """T5 1.1 then had only tie_word_embeddings; 1.0 had neither field. The table of tokens is there three times."""
  from safetensors.torch import load_file, save_file

  for case in ("1.0", "1.1"):
    folder, _ = written(case)
    expected, target = interop.load(folder), tmp_path / case
    target.mkdir()
    fields = json.loads((folder / "config.json").read_text())
    del fields["scale_decoder_outputs"]
    fields |= {"tie_word_embeddings": False} if case == "1.1" else {}
    (target / "config.json").write_text(json.dumps(fields))
    tensors = load_file(folder / "model.safetensors")
    tables = {f"{stack}.embed_tokens.weight": tensors["shared.weight"].clone() for stack in ("encoder", "decoder")}
    tables |= {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.zeros(32, 3)}
    save_file(tensors | tables, target / "model.safetensors")
    model, params = interop.load(target)
    assert model.config == expected[0].config
    assert_same_params(params, expected[1])


def test_what_t5_cannot_hold_is_named(tmp_path, written):
  model, params = interop.load(written("1.1")[0])
  text = dataclasses.replace(model.config.text, activation="quick_gelu")
  with pytest.raises(InteropError, match="no MLP with activation='quick_gelu' with a gate"):
    interop.save(dataclasses.replace(model.config, text=text).build(), params, tmp_path)
  text = dataclasses.replace(model.config.text, rms_norm=False)
  with pytest.raises(InteropError, match="text.rms_norm is False"):
    interop.save(dataclasses.replace(model.config, text=text).build(), params, tmp_path)
