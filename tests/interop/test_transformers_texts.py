"""transformers' text encoders and ours give the same vectors, both ways, from random weights."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.errors import InteropError
from mmjax.interop.sentence import write_pooling
from mmjax.nn.relative import distance_buckets
from tests.interop.references import (
  assert_close,
  assert_same_params,
  assert_same_tensors,
  embed,
  randomize,
  reference,
)

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

SIZE = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
SIZE |= dict(max_position_embeddings=14, pad_token_id=1)
OTHER = dict(hidden_act="gelu_new", layer_norm_eps=1e-3, num_attention_heads=4)
DISTIL = dict(dim=16, hidden_dim=24, n_layers=1, n_heads=2, vocab_size=50, max_position_embeddings=12, pad_token_id=1)
CASES = {
  "roberta": ("Roberta", SIZE | dict(type_vocab_size=1), True),
  "roberta, no pooler": ("Roberta", SIZE | OTHER | dict(pad_token_id=0, type_vocab_size=2), False),
  "xlm-roberta": ("XLMRoberta", SIZE | OTHER | dict(num_hidden_layers=2), True),
  "mpnet": ("MPNet", SIZE, True),
  "mpnet, no pooler": ("MPNet", SIZE | OTHER, False),
  "distilbert": ("DistilBert", DISTIL, None),
  "distilbert, sinusoidal": (
    "DistilBert",
    DISTIL | dict(activation="relu", n_heads=4, sinusoidal_pos_embds=True),
    None,
  ),
}
MODERN = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2, vocab_size=50)
MODERN |= dict(max_position_embeddings=12, pad_token_id=1, eos_token_id=3, bos_token_id=2, cls_token_id=2)
MODERN |= dict(sep_token_id=3, local_attention=6)
MODERN_OTHER = dict(hidden_activation="silu", norm_eps=1e-3, norm_bias=True, attention_bias=True, mlp_bias=True)
MODERN_OTHER |= dict(global_attn_every_n_layers=2, num_hidden_layers=3, local_attention=8, num_attention_heads=4)
CASES |= {
  "modernbert": ("ModernBert", MODERN, None),
  "modernbert, biases": ("ModernBert", MODERN | MODERN_OTHER, None),
}
T5 = dict(d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=3, vocab_size=50)
T5_CASES = {
  "t5": ("T5", T5),
  "t5, few buckets": ("T5", T5 | dict(relative_attention_num_buckets=8, relative_attention_max_distance=9)),
  "mt5": ("MT5", T5 | dict(num_layers=1, layer_norm_epsilon=1e-3)),
  "t5, a gate with silu": ("T5", T5 | dict(feed_forward_proj="gated-silu", d_kv=8, num_heads=2, num_layers=1)),
}
IDS = np.random.default_rng(0).integers(2, 50, (4, 12)).astype(np.int32)


def padded(pad: int) -> np.ndarray:
  """Texts with padding at the end, at the beginning, in the middle, and without."""
  ids = IDS.copy()
  ids[0, 7:], ids[1, :3], ids[2, 4:6] = pad, pad, pad
  return ids


def made(name, fields, pooler):
  config = getattr(transformers, f"{name}Config")(**fields)
  more = {} if pooler is None else dict(add_pooling_layer=pooler)
  model = getattr(transformers, f"{name}Model")(config, **more).eval()
  randomize(model)
  return model


def vectors(model, ids, pooler):
  ids = torch.tensor(ids).long()
  with torch.no_grad():
    out = model(ids, attention_mask=(ids != model.config.pad_token_id).long())
  return out.pooler_output if pooler else out.last_hidden_state[:, 0]


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  name, fields, pooler = CASES[case]
  theirs, ids = made(name, fields, pooler), padded(fields["pad_token_id"])
  theirs.save_pretrained(tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  expected = vectors(theirs, ids, pooler)
  assert_close(embed(model, params, "encode_text", ids), expected)
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again, info = transformers.AutoModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert pooler is not True or not info["missing_keys"]
  assert not info["unexpected_keys"]
  torch.testing.assert_close(vectors(again.eval(), ids, pooler), expected, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], params)


def test_segments_and_lengths_of_roberta(tmp_path):
  """Token types are read, a longer text is refused, and a shorter model keeps the row of padding."""
  theirs = made("Roberta", SIZE | dict(type_vocab_size=2), True)
  theirs.save_pretrained(tmp_path)
  ids, types = padded(1), np.tile(np.arange(12) // 6, (4, 1)).astype(np.int32)
  model, params = interop.load(tmp_path)
  ours = model.apply({"params": params}, jnp.asarray(ids), jnp.asarray(types), method="encode_text")
  with torch.no_grad():
    out = theirs(
      torch.tensor(ids).long(),
      attention_mask=torch.tensor(ids != 1).long(),
      token_type_ids=torch.tensor(types).long(),
    )
  assert_close(np.asarray(ours), out.pooler_output)
  short, kept = interop.load(tmp_path, max_length=5)
  ids = np.where(np.arange(5) < 4, ids[:, :5], 1)
  assert_close(embed(short, kept, "encode_text", ids), vectors(theirs, ids, True))
  with pytest.raises(ValueError, match="text has 13 tokens, more than max_length=12"):
    model.apply({"params": params}, jnp.ones((1, 13), jnp.int32))


@pytest.mark.parametrize("case", ["roberta", "mpnet", "distilbert", "modernbert"])
def test_sentence_encoders(case, tmp_path):
  """The files of sentence-transformers set the mean over the tokens, and are written again."""
  name, fields, pooler = CASES[case]
  theirs, ids = made(name, fields, pooler), padded(1)
  theirs.save_pretrained(tmp_path / "theirs")
  write_pooling(interop.load(tmp_path / "theirs")[0].config, tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  with torch.no_grad():
    mask = torch.tensor(ids != 1).long()
    tokens = theirs(torch.tensor(ids).long(), attention_mask=mask).last_hidden_state
  expected = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
  assert_close(embed(model, params, "encode_text", ids), expected)
  interop.save(model, params, tmp_path / "ours")
  assert interop.load(tmp_path / "ours")[0].config == model.config


@pytest.mark.parametrize("case", T5_CASES)
def test_t5_both_ways(case, tmp_path):
  name, fields = T5_CASES[case]
  config = getattr(transformers, f"{name}Config")(**fields)
  theirs = getattr(transformers, f"{name}EncoderModel")(config).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  ids = np.concatenate([padded(0), padded(0)[:, ::-1]], axis=1)  # longer than the buckets of one token each
  mask = torch.tensor(ids != 0).long()

  def mean(encoder):
    with torch.no_grad():
      tokens = encoder(torch.tensor(ids.copy()).long(), attention_mask=mask).last_hidden_state
    return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

  assert_close(embed(model, params, "encode_text", ids), mean(theirs))
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again = transformers.T5EncoderModel.from_pretrained(tmp_path / "ours").eval()
  torch.testing.assert_close(mean(again), mean(theirs), rtol=0, atol=1e-6)
  assert interop.load(tmp_path / "ours")[0].config == model.config


@pytest.mark.parametrize(("buckets", "distance", "causal"), [(32, 128, False), (32, 128, True), (16, 50, False)])
def test_buckets_of_distances(buckets, distance, causal):
  theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
  offset = torch.arange(600)[None] - torch.arange(600)[:, None]
  expected = theirs(offset, bidirectional=not causal, num_buckets=buckets, max_distance=distance)
  ours = distance_buckets(600, buckets=buckets, distance=distance, causal=causal)
  np.testing.assert_array_equal(ours, expected)


def test_of_a_t5_with_a_decoder_the_encoder_is_read_if_asked_for(tmp_path):
  theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**T5))
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "both")
  transformers.T5EncoderModel.from_pretrained(tmp_path / "both").save_pretrained(tmp_path / "encoder")
  assert_same_params(interop.load(tmp_path / "both", tower="text")[1], interop.load(tmp_path / "encoder")[1])


@pytest.mark.parametrize(
  ("case", "field", "value"),
  [
    ("roberta", "is_decoder", True),
    ("roberta", "position_embedding_type", "relative_key"),
    ("mpnet", "relative_attention_num_buckets", 16),
    ("mpnet", "pad_token_id", 0),
    ("distilbert", "activation", "tanh"),
  ],
)
def test_what_is_not_supported_is_refused(case, field, value, tmp_path):

  name, fields, pooler = CASES[case]
  made(name, fields, pooler).save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
  with pytest.raises(InteropError, match=f"config.json: {field} is"):
    interop.load(tmp_path)


def test_of_a_modernbert_that_guesses_words_the_encoder_is_read(tmp_path):
  """As it is published: with a head, and by transformers 4 with other fields for the same settings."""
  config = transformers.ModernBertConfig(**MODERN | dict(num_hidden_layers=2))
  theirs = transformers.ModernBertForMaskedLM(config).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path)
  path = tmp_path / "config.json"
  record = json.loads(path.read_text())
  for name in ("layer_types", "rope_parameters"):
    record.pop(name, None)
  record |= dict(global_rope_theta=160000.0, local_rope_theta=10000.0, global_attn_every_n_layers=3)
  path.write_text(json.dumps(record))
  model, params = interop.load(tmp_path)
  assert_close(embed(model, params, "encode_text", padded(1)), vectors(theirs.model, padded(1), None))
  for name, value in (("mlp_bias", True), ("layer_types", ["sliding_attention"] * 2), ("is_causal", True)):
    path.write_text(json.dumps(record | {name: value}))
    with pytest.raises(InteropError, match=name):
      interop.load(tmp_path)
  rotation = {"full_attention": {"rope_type": "yarn"}}
  path.write_text(json.dumps(record | {"rope_parameters": rotation}))
  with pytest.raises(InteropError, match="rope_type is 'yarn'"):
    interop.load(tmp_path)
