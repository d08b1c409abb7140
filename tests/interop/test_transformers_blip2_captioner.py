"""transformers' Blip2ForConditionalGeneration and ours write alike, both ways, from random weights."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.interop.architecture import canonical, differences
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.inspection import beside
from mmjax.interop.source import finish_model
from mmjax.interop.transformers_blip2_captioner import BLIP2_CAPTIONER
from mmjax.models.blip2_captioner import Blip2CaptionerConfig
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from tests.interop.references import (
  IMAGES,
  assert_close,
  assert_same_params,
  assert_same_tensors,
  randomize,
  reference,
)

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

IMAGE = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=16)
IMAGE |= dict(patch_size=8)
QFORMER = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, encoder_hidden_size=16)
OPT = dict(model_type="opt", hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=40)
OPT |= dict(max_position_embeddings=24, pad_token_id=1, bos_token_id=2, eos_token_id=3)
T5 = dict(model_type="t5", d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, vocab_size=40, eos_token_id=1)
T5 |= dict(decoder_start_token_id=0, bos_token_id=1, pad_token_id=0, tie_word_embeddings=False)
OTHER = dict(hidden_act="gelu_new", layer_norm_eps=1e-3, num_attention_heads=4)
CASES = {
  "opt": (IMAGE, QFORMER, OPT, 3),
  "opt, other options": (IMAGE | OTHER, QFORMER | dict(num_hidden_layers=1), OPT | dict(do_layer_norm_before=False), 2),
  "t5": (IMAGE, QFORMER, T5 | dict(feed_forward_proj="gated-gelu", num_layers=2, num_decoder_layers=1), 3),
  "t5, other options": (IMAGE, QFORMER | OTHER | dict(cross_attention_frequency=1), T5 | dict(d_kv=5), 2),
}
PIXELS = IMAGES[:2, :16, :16]
IMAGE_ID, NEW = 39, 9
PROMPT = np.array([[2, 5, 6, 7], [2, 8, 9, 10]], np.int32)  # a question, or the begin of a caption
WORDS = np.array([[0, 11, 12, 13, 14], [0, 15, 16, 17, 18]], np.int32)  # for T5, what is written


def made(case):
  image, qformer, text, queries = CASES[case]
  config = transformers.Blip2Config(
    vision_config=image, qformer_config=qformer, text_config=text, num_query_tokens=queries, image_token_index=IMAGE_ID
  )
  theirs = transformers.Blip2ForConditionalGeneration(config).eval()
  if text is not OPT and text["model_type"] == "t5":
    theirs.language_model.lm_head.weight = torch.nn.Parameter(torch.zeros(40, 16))
  randomize(theirs)
  theirs.language_model.generation_config.eos_token_id = None
  return theirs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  @functools.cache
  def write(case):
    folder, theirs = tmp_path_factory.mktemp("blip2"), made(case)
    theirs.save_pretrained(folder)
    return folder, theirs

  return write


def inputs(model):
  image = np.full((2, model.config.num_query_tokens), IMAGE_ID, np.int32)
  ids = torch.tensor(np.concatenate([image, PROMPT], axis=1)).long()
  return dict(pixel_values=torch.tensor(PIXELS.transpose(0, 3, 1, 2)), input_ids=ids, attention_mask=ids * 0 + 1)


def logits(model):
  """Of the words of the prompt, or, by T5, of those that follow it."""
  words = {} if model.config.use_decoder_only_language_model else dict(decoder_input_ids=torch.tensor(WORDS).long())
  with torch.no_grad():
    found = model(**inputs(model), **words).logits.numpy()
  return found if words else found[:, model.config.num_query_tokens :]


def texts(model):
  """The words that transformers writes after the prompt."""
  settings = dict(max_new_tokens=NEW, do_sample=False, eos_token_id=None)
  out = model.generate(**inputs(model), **settings).numpy()
  return out[:, -NEW:]


def context(model):
  """The context, and the prompt of what is written."""
  if not model.config.encoder_depth:
    return lambda m: m.encode({"image": PIXELS})["image"], PROMPT
  return lambda m: m.fuse(m.encode({"image": PIXELS, "text": PROMPT}))["text"], WORDS[:, :1]


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path, written):
  folder, theirs = written(case)
  found = interop.load_pretrained(folder)
  model, params, expected = found.model, found.params, logits(theirs)
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  read, begin = context(model)
  ids = WORDS if model.config.encoder_depth else PROMPT
  ours = jax.jit(lambda p: model.apply({"params": p}, method=lambda m: m.decode(ids, read(m))))(params)
  np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
  encoded = jax.jit(lambda p: model.apply({"params": p}, method=read))(params)
  mine = generate(model, params, jnp.asarray(begin), encoded, config=GenerateConfig(max_new_tokens=NEW))
  np.testing.assert_array_equal(np.asarray(mine.ids)[:, begin.shape[1] :], texts(theirs))
  beams = generate(model, params, jnp.asarray(begin), encoded, config=GenerateConfig(max_new_tokens=3, beams=2))
  assert (np.asarray(beams.score) >= np.asarray(_first(model, params, begin, encoded).score) - 1e-5).all()
  interop.save(model, params, tmp_path)
  assert_same_tensors(folder / "model.safetensors", tmp_path / "model.safetensors")
  kind = transformers.Blip2ForConditionalGeneration
  again, info = kind.from_pretrained(tmp_path, output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  np.testing.assert_allclose(logits(again.eval()), expected, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(texts(again), texts(theirs))
  back, same = interop.load(tmp_path)
  assert back.config == model.config
  assert_same_params(same, params)


def _first(model, params, begin, encoded):
  return generate(model, params, jnp.asarray(begin), encoded, config=GenerateConfig(max_new_tokens=3))


PUBLISHED = {
  "architectures": ["Blip2ForConditionalGeneration"],
  "image_text_hidden_size": 256,
  "image_token_index": 50265,
  "initializer_factor": 1.0,
  "initializer_range": 0.02,
  "model_type": "blip-2",
  "num_query_tokens": 32,
  "qformer_config": {"classifier_dropout": None, "model_type": "blip_2_qformer"},
  "text_config": {
    "_name_or_path": "facebook/opt-2.7b",
    "activation_dropout": 0.0,
    "architectures": ["OPTForCausalLM"],
    "eos_token_id": 50118,
    "ffn_dim": 10240,
    "hidden_size": 2560,
    "model_type": "opt",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "vocab_size": 50304,
    "word_embed_proj_dim": 2560,
  },
  "torch_dtype": "float32",
  "transformers_version": "4.47.0.dev0",
  "use_decoder_only_language_model": True,
  "vision_config": {
    "dropout": 0.0,
    "initializer_factor": 1.0,
    "model_type": "blip_2_vision_model",
    "num_channels": 3,
    "projection_dim": 512,
  },
}
"""config.json of Salesforce/blip2-opt-2.7b, which leaves out transformers' defaults."""


def test_the_published_configuration_is_read_and_is_the_default():
  fields = Fields(PUBLISHED, "config.json")
  config = BLIP2_CAPTIONER.read(fields, {"language_model.model.decoder.embed_tokens.weight": None})
  finish_model(fields, BLIP2_CAPTIONER.without_effect)
  ours = Blip2CaptionerConfig(image_id=50265)
  assert not list(differences(canonical(config), canonical(ours), "model"))


def test_its_image_tower_alone(written):
  folder, theirs = written("opt")
  model, params = interop.load(folder, tower="image")
  with torch.no_grad():
    tokens = theirs.vision_model(torch.tensor(PIXELS.transpose(0, 3, 1, 2))).last_hidden_state
  assert_close(np.asarray(model.apply({"params": params}, PIXELS).tokens), tokens)


def test_the_image_tower_of_instructblip(tmp_path):
  """Its Q-Former reads the question too, which mmjax has no model for."""
  config = transformers.InstructBlipConfig(vision_config=IMAGE, qformer_config=QFORMER, text_config=OPT)
  theirs = transformers.InstructBlipForConditionalGeneration(config).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match="InstructBlipForConditionalGeneration, which mmjax has no model for"):
    interop.load(tmp_path)
  model, params = interop.load(tmp_path, tower="image")
  with torch.no_grad():
    tokens = theirs.vision_model(torch.tensor(PIXELS.transpose(0, 3, 1, 2))).last_hidden_state
  assert_close(np.asarray(model.apply({"params": params}, PIXELS).tokens), tokens)


def test_a_shorter_text_keeps_its_positions(written):
  folder, theirs = written("opt")
  model, params = interop.load(folder, max_length=4)
  read, _ = context(model)
  ours = jax.jit(lambda p: model.apply({"params": p}, method=lambda m: m.decode(PROMPT, read(m))))(params)
  np.testing.assert_allclose(ours, logits(theirs), rtol=0, atol=2e-5 * np.abs(logits(theirs)).max())


def test_preprocessing_and_tokenizer(tmp_path, written):
  """The processor's pixels, and its ids of a prompt without those of the image."""
  import shutil

  import tokenizers

  folder, _ = written("opt")
  shutil.copytree(folder, tmp_path / "x")
  prompt = "Question: how many? Answer:"
  pieces = sorted(set(prompt.replace(" ", "Ġ")))  # no more than the model has rows
  vocabulary = {piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", *pieces])}
  engine = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
  engine.post_processor = tokenizers.processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", 2)])
  engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  special = dict(bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>")
  fast = transformers.GPT2TokenizerFast(tokenizer_object=engine, **special)
  fast._tokenizer.post_processor = engine.post_processor
  images = transformers.BlipImageProcessorPil(size=dict(height=16, width=16))
  processor = transformers.Blip2Processor(images, fast, num_query_tokens=3)
  processor.save_pretrained(tmp_path / "x")
  found = interop.load_pretrained(tmp_path / "x")
  picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (21, 30, 3), np.uint8))
  expected = processor(images=picture, text=prompt)
  mine = found.preprocess(picture)
  np.testing.assert_allclose(np.asarray(mine).transpose(2, 0, 1), np.asarray(expected["pixel_values"])[0], atol=1e-5)
  ids = found.tokenizer([prompt])[0]
  theirs = expected["input_ids"][0][3:]
  length = min(len(theirs), len(ids))
  assert ids[:length].tolist() == list(theirs)[:length] and (ids[length:] == 1).all()


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"text_config": {"model_type": "llama"}}, "text_config: model_type is 'llama', but must be 'opt' or 't5'"),
    ({"use_decoder_only_language_model": False}, "use_decoder_only_language_model is False"),
    ({"num_query_tokens": 24}, "max_position_embeddings is 24, but must be more than num_query_tokens, 24"),
  ],
)
def test_what_is_not_supported_is_refused(change, said, tmp_path, written):
  folder, _ = written("opt")
  fields = json.loads((folder / "config.json").read_text())
  (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
  merged = {n: fields[n] | v if isinstance(v, dict) else v for n, v in change.items()}
  (tmp_path / "config.json").write_text(json.dumps(fields | merged))
  with pytest.raises(InteropError, match=said):
    interop.load(tmp_path)
