"""VQA: what each fusion lets the heads know, controls that see one modality, written answers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.errors import ConfigError
from mmjax.fusion.config import FusionConfig
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.models.vqa import Vqa, VqaConfig, VqaWriter
from mmjax.objectives import Answer, Forward, ModalityAnswer
from tests.models import joint_models as joint
from tests.objectives.per_example import cross_entropy

CONFIG = VqaConfig(
  image=ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2, mlp_dim=8, pool="mean"),
  text=TextConfig(
    vocab_size=joint.VOCABULARY, max_length=joint.WORDS, width=8, depth=1, num_heads=2, mlp_dim=8, causal=False,
    pool="mean", eos_id=3,
  ),
  fusion=FusionConfig(width=8, depth=1, num_heads=2, mlp_dim=8),
  num_answers=5,
)  # fmt: skip
LATE = dataclasses.replace(CONFIG, fusion=dataclasses.replace(CONFIG.fusion, kind="late"))
WRITER = dataclasses.replace(CONFIG, decoder_depth=1)


def out(config, **changes):
  return joint.run(joint.params(config), {**joint.BATCH, **changes}, config)


def test_shapes():
  assert {n: x.shape for n, x in out(CONFIG).items()} == {"answer": (4, 5), "relevance": (4, 8, 8)}
  assert {n: x.shape for n, x in out(LATE).items()} == {"answer": (4, 5), "relevance": (4, 8, 8)}
  assert "answer_projection" not in joint.params(LATE)


@pytest.mark.parametrize("sees", ["image", "text"])
def test_controls_see_one_modality(sees):
  config = dataclasses.replace(CONFIG, sees=sees)
  before, words, pictures = out(config), out(config, text=joint.TEXT[::-1]), out(config, image=joint.IMAGES[::-1])
  blind, seen = (words, pictures) if sees == "image" else (pictures, words)
  np.testing.assert_array_equal(before["answer"], blind["answer"])
  assert (joint.moved(before["answer"], seen["answer"]) > 1e-4).all()
  assert ("relevance" in before) == (sees == "image")


def test_masks_follow_the_question_in_a_joint_transformer_and_not_in_late_fusion():
  question = joint.TEXT.at[:3, 1].set(11)
  assert (joint.moved(out(CONFIG)["relevance"], out(CONFIG, text=question)["relevance"])[:3] > 1e-5).all()
  np.testing.assert_array_equal(out(LATE)["relevance"], out(LATE, text=question)["relevance"])


def test_late_fusion_adds_up():
  """Answers to (picture, question) pairs: with late fusion a sum of what each says, with the joint transformer not."""
  swapped = joint.IMAGES.at[:2].set(joint.IMAGES[1::-1])
  for config, adds in ((LATE, True), (CONFIG, False)):
    own, other = out(config)["answer"][:2], out(config, image=swapped)["answer"][:2]
    gap = float(jnp.abs(own.sum(0) - other.sum(0)).max())
    assert (gap < 1e-5) == adds, (config.fusion.kind, gap)


@functools.cache
def losses(config):
  """jitted: params -> {term: (losses, weights, gradient of their sum)} of every loss of a late fusion."""
  batch = {**joint.BATCH, "answer": jnp.asarray([1, 4, 0, 2], jnp.int32)}
  rng = jax.random.split(jax.random.key(0), 4)

  def scored(params, term):
    def speak(module):
      given = Forward(module, batch, rng, jnp.int32(0), ("image", "text"), training=False)
      return term.over_rows(given, None)["loss"]

    return config.build().apply({"params": params}, method=speak)

  def gradient(params, term):
    total, pull = jax.vjp(lambda p: scored(p, term).losses, params)
    return *scored(params, term), pull(jnp.ones_like(total))[0]

  return jax.jit(lambda params: {t.name: gradient(params, t) for t in (Answer(), ModalityAnswer(), *EACH)})


EACH = (ModalityAnswer(modality="image"), ModalityAnswer(modality="text"))


def test_late_fusion_has_a_loss_per_modality_beside_the_fused_one():
  params = joint.params(LATE)
  found = losses(LATE)(params)
  encoded = jax.jit(lambda p: LATE.build().apply({"params": p}, joint.BATCH, method="encode"))(params)
  answer, heads, alone = np.asarray([1, 4, 0, 2]), params["fusion"], {}
  for place, name in enumerate(("text", "image")):
    head = heads[f"input_{place}_projection"]
    alone[name] = np.asarray(encoded[name].pooled @ head["kernel"] + head["bias"][None], np.float64)
    of, weights, gradient = found[f"answer_{name}_alone"]
    counted = np.asarray([1, 1, 1, name == "image"])  # the last question is padding only
    np.testing.assert_allclose(of, cross_entropy(alone[name], answer) * counted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(weights, counted)
    other = "image" if name == "text" else "text"
    moved = lambda tree: any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))
    assert moved(gradient[name]) and not moved(gradient[other]), "an expert of one modality"
    assert not moved(gradient["fusion"][f"input_{1 - place}_projection"])
  both, weights, _ = found["answer_each_alone"]
  np.testing.assert_allclose(both, found["answer_image_alone"][0] + found["answer_text_alone"][0], rtol=1e-6)
  np.testing.assert_array_equal(weights, 1)
  mean = (alone["text"] + alone["image"]) / 2
  np.testing.assert_allclose(found["answer"][0][:3], cross_entropy(mean, answer)[:3], rtol=1e-4)


def test_a_fusion_without_a_head_per_modality_is_refused_by_the_term():
  with pytest.raises(ConfigError, match='fusion.kind="merged_attention" has no classifier for each modality'):
    losses(CONFIG)(joint.params(CONFIG))


def test_mask_logits_lie_on_their_patch():
  """Each patch's logits come from its own token: what changes one token changes its 4 x 4 pixels only."""
  model, values = Vqa(CONFIG), {"params": joint.params(CONFIG)}
  tokens = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 8)), jnp.float32)
  masks = [model.apply(values, t, method="relevance_logits") for t in (tokens, tokens.at[0, 1].add(1.0))]
  changed = np.asarray(masks[0] != masks[1])[0]
  assert changed[:4, 4:].all() and not changed[4:].any() and not changed[:, :4].any()


def test_padding_and_others_change_nothing():
  joint.assert_padding_and_others_change_nothing(CONFIG, ["answer"])


def test_eight_devices_equal_one():
  joint.assert_eight_devices_equal_one(WRITER)


def test_the_writer_reads_picture_and_question():
  model, values = VqaWriter(WRITER), joint.params(WRITER)

  @jax.jit
  def write(batch):
    def question(bound):
      encoded = bound.encode(batch)
      return bound.fuse(encoded)["text"]

    context = model.apply({"params": values}, method=question)
    prompt = jnp.full((4, 1), joint.CLS, jnp.int32)
    logits = model.apply({"params": values}, prompt, context, method="decode")
    return generate(model, values, prompt, context, config=GenerateConfig(max_new_tokens=3)).ids, logits

  ids, logits = write(joint.BATCH)
  assert ids.shape == (4, 4) and (ids[:, 1] == logits[:, 0].at[:, 0].set(-jnp.inf).argmax(-1)).all()
  for name in joint.BATCH:
    other = write({**joint.BATCH, name: joint.BATCH[name][::-1]})[1]
    assert (joint.moved(logits, other)[1:3] > 1e-5).all(), name


def test_misfits_are_refused():
  with pytest.raises(ValueError, match="any number of modalities"):
    dataclasses.replace(LATE, sees="text")
  with pytest.raises(ValueError, match="decoder_depth=0"):
    dataclasses.replace(WRITER, sees="image")
  with pytest.raises(ValueError, match="fusion.width=8"):
    dataclasses.replace(CONFIG, fusion=FusionConfig(kind="cross_attention", width=16, num_heads=2))
