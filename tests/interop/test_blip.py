"""transformers' BLIP and ours compare, match and write alike, both ways, from random weights."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.interop.__main__ import main
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from tests.interop.references import (
  IMAGES,
  assert_close,
  assert_same_params,
  assert_same_tensors,
  embed,
  randomize,
  reference,
)
from tests.models.decoders import stepwise

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402

VISION = dict(
  hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
)
TEXT = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, vocab_size=40)
TEXT |= dict(max_position_embeddings=9, bos_token_id=38, sep_token_id=39, pad_token_id=0)
CASES = {
  "two widths": ({}, {}),
  "activations and epsilons": (
    dict(hidden_act="gelu_new", layer_norm_eps=1e-4, num_attention_heads=3, num_hidden_layers=1),
    dict(hidden_act="quick_gelu", layer_norm_eps=1e-3, hidden_size=12, patch_size=4, num_attention_heads=4),
  ),
}
IDS = np.random.default_rng(0).integers(1, 37, (3, 9)).astype(np.int32)
IDS[0, 4:], IDS[1, 7:] = 0, 0
BATCH = {"image": IMAGES[:, :16, :16], "text": IDS}
PIXELS, TOKENS = torch.tensor(BATCH["image"].transpose(0, 3, 1, 2)), torch.tensor(IDS).long()
MASK = (TOKENS != 0).long()


def written(kind, case, folder, cases=CASES):
  text, vision = cases[case]
  config = transformers.BlipConfig(text_config=TEXT | text, vision_config=VISION | vision, image_text_hidden_size=6)
  theirs = kind(config).eval()
  randomize(theirs)
  theirs.save_pretrained(folder)
  return theirs


def assert_round_trip(kind, model, params, tmp_path, capsys):
  """Both folders hold the same tensors, and what is read of ours is what was written."""
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  assert_same_params(interop.load(tmp_path / "ours")[1], params)
  again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  assert main(["inspect", str(tmp_path / "ours")]) == 0
  assert f"{kind.__name__}, format transformers" in capsys.readouterr().out
  return again.eval()


def matched(model, batch):
  encoded = model.encode(batch)
  return model.match_logits(model.fuse(encoded)["text"].pooled)


@pytest.mark.parametrize("case", CASES)
def test_retrieval(case, tmp_path, capsys):
  kind = transformers.BlipForImageTextRetrieval
  theirs = written(kind, case, tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  match = jax.jit(lambda p: model.apply({"params": p}, BATCH, method=matched))(params)
  image, text = embed(model, params, "encode_image", BATCH["image"]), embed(model, params, "encode_text", IDS)
  ask = lambda model, head: model(TOKENS, PIXELS, use_itm_head=head, attention_mask=MASK)
  with torch.no_grad():
    apart, together = ask(theirs, False), ask(theirs, True).itm_score
    unit = torch.nn.functional.normalize(theirs.vision_proj(apart.last_hidden_state[:, 0]), dim=-1)
  assert_close(image, unit)
  assert_close(text, torch.nn.functional.normalize(theirs.text_proj(apart.question_embeds[:, 0]), dim=-1))
  assert_close(image @ text.T * np.asarray(model.apply({"params": params}, method="logit_scale")), apart.itm_score)
  assert_close(np.asarray(match), together)

  again = assert_round_trip(kind, model, params, tmp_path, capsys)
  with torch.no_grad():
    torch.testing.assert_close(ask(again, True).itm_score, together, rtol=0, atol=1e-6)


def decoded(model, batch):
  return model.decode(batch["text"], model.encode(batch)["image"])


@pytest.mark.parametrize("case", CASES)
def test_captions(case, tmp_path, capsys):
  kind = transformers.BlipForConditionalGeneration
  theirs = written(kind, case, tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  words = jax.jit(lambda p: model.apply({"params": p}, BATCH, method=decoded))(params)
  with torch.no_grad():
    expected = theirs(PIXELS, TOKENS).logits
  assert_close(np.asarray(words), expected)

  again = assert_round_trip(kind, model, params, tmp_path, capsys)
  with torch.no_grad():
    torch.testing.assert_close(again(PIXELS, TOKENS).logits, expected, rtol=0, atol=1e-6)


def test_captions_are_written_word_by_word_as_theirs_are(tmp_path):
  theirs = written(transformers.BlipForConditionalGeneration, "two widths", tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  read = jax.jit(lambda p: model.apply({"params": p}, BATCH, method="encode"))(params)["image"]
  whole = model.apply({"params": params}, jnp.asarray(IDS[:, :6]), read, method="decode")
  np.testing.assert_allclose(stepwise(model, params, jnp.asarray(IDS[:, :6]), read), whole, rtol=0, atol=1e-5)
  assert model.config.begin_id == TEXT["bos_token_id"]
  begin = np.full((3, 1), model.config.begin_id, np.int32)
  made = generate(model, params, jnp.asarray(begin), read, config=GenerateConfig(max_new_tokens=5, beams=1))
  expected = theirs.generate(PIXELS, max_new_tokens=5, do_sample=False)
  ids = np.zeros((3, made.ids.shape[1]), np.int32)
  ids[:, : expected.shape[1]] = expected.numpy()
  np.testing.assert_array_equal(made.ids, ids)
  interop.save(model, params, tmp_path / "ours")
  again = transformers.BlipForConditionalGeneration.from_pretrained(tmp_path / "ours")
  np.testing.assert_array_equal(again.generate(PIXELS, max_new_tokens=5, do_sample=False), expected)


QUESTION_CASES = {  # both stacks read vectors of the image's width
  "one width": (dict(hidden_size=16, num_hidden_layers=1), {}),
  "activations and epsilons": CASES["activations and epsilons"],
}


def answered(model, batch):
  return model.decode(batch["answer"], model.fuse(model.encode(batch))["text"])


@pytest.mark.parametrize("case", QUESTION_CASES)
def test_questions(case, tmp_path, capsys):
  kind = transformers.BlipForQuestionAnswering
  theirs = written(kind, case, tmp_path / "theirs", QUESTION_CASES)
  model, params = interop.load(tmp_path / "theirs")
  answer = IDS[::-1, :5].copy()
  words = jax.jit(lambda p: model.apply({"params": p}, BATCH | {"answer": answer}, method=answered))(params)

  def ask(model):
    """Each question without its padding: transformers 5's decoder reads it, ours and that of transformers 4 do not."""
    images = model.vision_model(PIXELS)[0]
    rows = []
    for row in range(3):
      real, image = TOKENS[row : row + 1][:, MASK[row] == 1], images[row : row + 1]
      question = model.text_encoder(real, encoder_hidden_states=image)[0]
      rows.append(model.text_decoder(torch.tensor(answer[[row]]).long(), encoder_hidden_states=question).logits)
    return torch.cat(rows).detach()

  expected = ask(theirs)
  assert_close(np.asarray(words), expected)

  again = assert_round_trip(kind, model, params, tmp_path, capsys)
  torch.testing.assert_close(ask(again), expected, rtol=0, atol=1e-6)


def test_answers_are_written_word_by_word_as_theirs_are(tmp_path):
  """Without padding, which their `generate` reads and their `forward` does not."""
  theirs = written(transformers.BlipForQuestionAnswering, "one width", tmp_path / "theirs", QUESTION_CASES)
  model, params = interop.load(tmp_path / "theirs")
  ids = IDS[:, :4]
  fused = lambda model, batch: model.fuse(model.encode(batch))["text"]
  question = jax.jit(lambda p: model.apply({"params": p}, BATCH | {"text": ids}, method=fused))(params)
  begin = jnp.full((3, 1), model.config.begin_id, jnp.int32)
  made = generate(model, params, begin, question, config=GenerateConfig(max_new_tokens=4, beams=1))
  expected = theirs.generate(torch.tensor(ids).long(), PIXELS, max_new_tokens=4, do_sample=False)
  padded = np.zeros((3, made.ids.shape[1]), np.int32)
  padded[:, : expected.shape[1]] = expected.numpy()
  np.testing.assert_array_equal(made.ids, padded)


@pytest.mark.parametrize("case", CASES)
def test_embeddings_of_blip_model(case, tmp_path):
  """Its text tower has a cross-attention that it does not use, and that is written as zeros."""
  theirs = written(transformers.BlipModel, case, tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")

  def features(model):
    with torch.no_grad():
      images, texts = model.get_image_features(PIXELS), model.get_text_features(TOKENS, attention_mask=MASK)
    return images.pooler_output, texts.pooler_output

  pair = embed(model, params, "encode_image", BATCH["image"]), embed(model, params, "encode_text", IDS)
  for mine, yours in zip(pair, features(theirs), strict=True):
    assert_close(mine, yours)
  scale = model.apply({"params": params}, method="logit_scale")
  np.testing.assert_allclose(scale, theirs.logit_scale.exp().item(), rtol=1e-6)
  interop.save(model, params, tmp_path / "ours")
  with pytest.raises(interop.InteropError, match="init_logit_scale|cannot hold"):
    interop.save(dataclasses.replace(model.config, image_projection="affine").build(), params, tmp_path / "o")
  first, second = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
  unused = lambda name: "crossattention" in name or name.endswith("position_ids")
  used = lambda found: {name: tensor.tobytes() for name, tensor in found.items() if not unused(name)}
  assert used(first) == used(second)
  again, info = transformers.BlipModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  for mine, yours in zip(features(again.eval()), features(theirs), strict=True):
    torch.testing.assert_close(mine, yours, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], params)


def test_of_a_blip_model_the_image_tower_is_read(tmp_path):
  """Its text tower has a pooler, and its vectors of images are normalised twice."""
  theirs = written(transformers.BlipModel, "two widths", tmp_path)
  model, params = interop.load(tmp_path, tower="image")
  with torch.no_grad():
    expected = theirs.vision_model(PIXELS).last_hidden_state[:, 0]
  assert_close(embed(model, params, "encode_image", BATCH["image"]), expected)
  theirs.vision_model.save_pretrained(tmp_path / "alone")
  assert_same_params(interop.load(tmp_path / "alone")[1], params)


def test_stacks_of_another_width_than_the_images_are_refused(tmp_path):
  written(transformers.BlipForQuestionAnswering, "two widths", tmp_path)
  with pytest.raises(interop.InteropError, match="hidden_size is 12, but must be the vision tower's hidden_size, 16"):
    interop.load(tmp_path)


def test_pictures_are_prepared_as_by_their_processor(tmp_path):
  theirs = transformers.BlipImageProcessor(size={"height": 16, "width": 16})
  written(transformers.BlipForConditionalGeneration, "two widths", tmp_path)
  picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 23, 3)).astype(np.uint8))
  expected = theirs(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
  for saved in (False, True):  # by default, and by what is written beside the weights
    found = interop.load_pretrained(tmp_path)
    assert (np.abs(found.preprocess(picture) - expected) * np.array(found.preprocess.std)).max() <= 1.001 / 255
    if not saved:
      theirs.save_pretrained(tmp_path)
  interop.save(found.model, found.params, tmp_path / "ours", preprocess=found.preprocess)
  again = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours")
  assert type(again).__name__.startswith("BlipImageProcessor")
  np.testing.assert_allclose(
    again(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0), expected, atol=1e-6
  )


def test_a_text_stack_without_cross_attention_is_refused(tmp_path):
  written(transformers.BlipForImageTextRetrieval, "two widths", tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  config["text_config"]["is_decoder"] = False
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(interop.InteropError, match="text_config: is_decoder is False"):
    interop.load(tmp_path)
