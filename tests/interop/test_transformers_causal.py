"""transformers' causal language models and ours: the same logits, the same texts, both ways, from random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.errors import InteropError
from mmjax.models.generate import GenerateConfig, generate
from tests.interop.references import assert_same_params, assert_same_tensors, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

IDS = dict(vocab_size=50, eos_token_id=3, bos_token_id=None)
GPT2 = dict(n_embd=16, n_layer=1, n_head=2, n_positions=24) | IDS
OTHER = dict(n_head=4, n_inner=20, activation_function="relu", layer_norm_epsilon=1e-3, scale_attn_weights=False)
SIZE = dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2)
SIZE |= dict(max_position_embeddings=24) | IDS
OPT = dict(hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=24)
OPT |= IDS | dict(pad_token_id=1, bos_token_id=2)
ROPE = dict(rope_parameters=dict(rope_type="default", rope_theta=100.0), rms_norm_eps=1e-3, num_hidden_layers=1)
CASES = {
  "gpt2": ("GPT2LMHead", GPT2),
  "gpt2, scores apart": ("GPT2LMHead", GPT2 | OTHER | dict(pad_token_id=0, tie_word_embeddings=False)),
  "llama, tied": ("LlamaForCausalLM", SIZE | dict(tie_word_embeddings=True)),
  "llama, wide heads": ("LlamaForCausalLM", SIZE | ROPE | dict(head_dim=6, num_key_value_heads=None, pad_token_id=0)),
  "qwen2": ("Qwen2ForCausalLM", SIZE | ROPE | dict(num_key_value_heads=1)),
  "opt": ("OPTForCausalLM", OPT),
  "opt-350m": ("OPTForCausalLM", OPT | dict(do_layer_norm_before=False, word_embed_proj_dim=8, num_hidden_layers=2)),
  "galactica": (
    "OPTForCausalLM",
    OPT | dict(enable_bias=False, activation_function="gelu", num_attention_heads=4, tie_word_embeddings=False),
  ),
}
TEXTS = np.random.default_rng(0).integers(4, 50, (3, 7)).astype(np.int32)
NEW = 12


def made(case):
  name, fields = CASES[case]
  name = f"{name}Model" if name.startswith("GPT2") else name
  config = getattr(transformers, name.replace("LMHeadModel", "").replace("ForCausalLM", "") + "Config")(**fields)
  model = getattr(transformers, name)(config).eval()
  randomize(model)
  model.tie_weights()
  return model


def logits(model, ids=TEXTS):
  with torch.no_grad():
    return model(torch.tensor(ids).long()).logits.numpy()


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  theirs = made(case)
  theirs.save_pretrained(tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  ours = jax.jit(lambda p, ids: model.apply({"params": p}, ids, method="decode"))(params, TEXTS)
  expected = logits(theirs)
  np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert type(again) is type(theirs) and not info["missing_keys"] and not info["unexpected_keys"]
  np.testing.assert_allclose(logits(again.eval()), expected, rtol=0, atol=1e-6)
  back, same = interop.load(tmp_path / "ours")
  assert back.config == model.config
  assert_same_params(same, params)


@pytest.mark.parametrize("case", ["gpt2", "llama, wide heads", "opt-350m"])
def test_greedy_texts_are_the_same(case, tmp_path):
  """Word for word, with prompts of several lengths; one text ends early, in a model with and without padding."""
  theirs = made(case)
  theirs.save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  theirs.generation_config.eos_token_id = None
  end = int(texts(theirs, TEXTS[0], 7)[2])  # the third word of the first text ends it
  path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": end}))
  theirs.generation_config.eos_token_id = end
  theirs.generation_config.save_pretrained(tmp_path)  # its tokens are those of the generation, there and here
  model, params = interop.load(tmp_path)
  pad = model.config.text.pad_id
  assert pad == {"gpt2": end, "llama, wide heads": 0, "opt-350m": 1}[case]
  prompt = np.where(np.arange(7) < np.array([[7], [4], [6]]), TEXTS, pad).astype(np.int32)
  found = generate(model, params, jnp.asarray(prompt), config=GenerateConfig(max_new_tokens=NEW))
  for row, length, ids in zip(TEXTS, (7, 4, 6), np.asarray(found.ids), strict=True):
    words = texts(theirs, row, length)
    np.testing.assert_array_equal(ids[length : length + len(words)], words)
    assert (ids[length + len(words) :] == pad).all()
  assert len(texts(theirs, TEXTS[0], 7)) <= 3


def texts(model, row, length):
  """The words with which transformers continues a prompt."""
  prompt = torch.tensor(row[None, :length]).long()
  out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False)
  return out[0, length:].numpy()


def test_gpt2_as_it_was_published(tmp_path):
  """Without the head and its prefix, with the buffers of the causal mask."""
  from safetensors.torch import load_file, save_file

  theirs = made("gpt2")
  theirs.save_pretrained(tmp_path)
  params = interop.load(tmp_path)[1]
  tensors = load_file(tmp_path / "model.safetensors")
  bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
  save_file(bare | {"h.0.attn.bias": torch.ones(1, 1, 24, 24)}, tmp_path / "model.safetensors")
  assert_same_params(interop.load(tmp_path)[1], params)


def test_the_tokenizer_pads_as_the_model_reads(tmp_path):
  """GPT-2's files name no padding token: texts are padded at the end with the end token."""
  import tokenizers

  made("gpt2").save_pretrained(tmp_path)
  words = {word: number for number, word in enumerate(["<unk>", "a", "cat", "<|endoftext|>", "sat"])}
  engine = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
  engine.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  engine.save(str(tmp_path / "tokenizer.json"))
  settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "padding_side": "left"}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
  ids = interop.load_pretrained(tmp_path, max_length=5).tokenizer(["a cat", "a cat sat a cat sat"])
  assert ids.tolist() == [[1, 2, 3, 3, 3], [1, 2, 4, 1, 2]]


@pytest.mark.parametrize(
  ("case", "field", "value"),
  [
    ("gpt2", "scale_attn_by_inverse_layer_idx", True),
    ("gpt2", "add_cross_attention", True),
    ("gpt2", "eos_token_id", None),
    ("llama, tied", "attention_bias", True),
    ("llama, tied", "mlp_bias", True),
    ("llama, tied", "rope_scaling", {"type": "linear", "factor": 2.0}),
    ("llama, tied", "rope_parameters: rope_type", {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}),
    ("llama, tied", "eos_token_id", [2, 3]),
    ("opt", "_remove_final_layer_norm", True),
    ("opt", "layer_norm_elementwise_affine", False),
    ("qwen2", "use_sliding_window", True),
    ("qwen2", "layer_types", ["sliding_attention"]),
  ],
)
def test_what_is_not_supported_is_refused(case, field, value, tmp_path):
  made(case).save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {field.split(":")[0]: value}))
  with pytest.raises(InteropError, match=f"config.json: {field} is"):
    interop.load(tmp_path)
