"""Terms in a step: what they move, remember, and learn from a frozen teacher; misfits are named before it."""

import dataclasses
import functools
from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.catalogue import KINDS
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.errors import ConfigError
from mmjax.kinds import default, of_base
from mmjax.models import protocols
from mmjax.models.config import ModelConfig
from mmjax.models.ensemble import EnsembleConfig
from mmjax.models.protocols import AlignsWords, missing
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.objectives import (
  Answer,
  BatchTerm,
  Caption,
  Contrastive,
  Distillation,
  ExampleTerm,
  FeatureDistillation,
  Hinge,
  Matching,
  Sogclr,
  clip_loss,
  distillation_loss,
  sogclr_loss,
)
from mmjax.parallel.mesh import put_batch
from mmjax.parallel.rules import parameter_path
from mmjax.train.loop import train
from mmjax.train.setup import check_model, check_needs, check_tokenizers, prepare
from tests.tiny import EXPERIMENT, experiment, host_batch

STILL = dataclasses.replace(EXPERIMENT.model, image=dataclasses.replace(EXPERIMENT.model.image, patch_dropout=0.0))
"""A model in which nothing is random: a step's embeddings can be made again."""
SCALE = STILL.init_logit_scale


def with_terms(*terms, **parts):
  return dataclasses.replace(experiment(**parts), model=STILL, objectives=terms)


def embeddings(model, params, batch):
  rows = {name: jnp.asarray(batch[name]) for name in ("image", "text")}
  return model.apply({"params": params}, rows, method=lambda module, rows: module.project(module.encode(rows)))


@functools.cache
def training(*terms, devices=1):
  return prepare(with_terms(*terms, optimizer=dict(clip_norm=0.0)), devices=jax.devices()[:devices])


def test_a_term_moves_the_parameters_that_it_names_and_no_others():
  moving = training(Contrastive(), Contrastive(loss=Hinge(), moves=("^text", "logit")))
  alone = training(Contrastive())
  batch, moments = host_batch(), []
  for made in (moving, alone):
    state, _ = made.step(made.initial_state(), put_batch(batch, made.mesh))
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    moments.append({parameter_path(path): np.asarray(leaf) for path, leaf in leaves if "/mu/" in parameter_path(path)})
  one, two = moments
  changed = {path.partition("/mu/")[2] for path in one if not np.allclose(one[path], two[path], rtol=1e-4, atol=1e-8)}
  assert changed and all(path.startswith("text") for path in changed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Both(ExampleTerm, BatchTerm):
  """Mean square of the pooled image, and distance of image and text, which grows with the steps that it remembers."""

  name, needs, reads = "both", ("image", "text"), ("image",)

  def over_rows(self, forward, taught):
    pooled = forward.encoded["image"].pooled
    return {
      "loss": (jnp.square(pooled).mean(-1), jnp.ones(len(pooled))),
      "pooled": (pooled[:, 0], jnp.ones(len(pooled))),
    }

  def memory(self, embed_dim):
    return jnp.ones(())

  def over_batch(self, whole):
    distance = jnp.square(whole.embeddings["image"] - whole.embeddings["text"]).sum(-1).mean()
    return whole.memory * distance, whole.memory + 1


def test_the_loss_of_a_term_with_two_parts_is_their_sum():
  made, batch = training(Both()), host_batch()
  state = made.initial_state()
  for remembered in (1, 2):
    params = jax.device_get(state.params)
    pooled = STILL.build().apply({"params": params}, {"image": batch["image"]}, method="encode")["image"].pooled
    unit = embeddings(made.model, params, batch)
    rows, whole = jnp.square(pooled).mean(), jnp.square(unit["image"] - unit["text"]).sum(-1).mean()
    state, metrics = made.step(state, put_batch(batch, made.mesh))
    assert rows > 1e-3 < whole
    np.testing.assert_allclose(metrics["both"], rows + remembered * whole, rtol=1e-5)
    np.testing.assert_allclose(metrics["both_pooled"], pooled[:, 0].mean(), rtol=1e-5, atol=1e-6)
  assert state.memory["both"] == 3


def test_an_expression_that_moves_nothing_is_named():
  with pytest.raises(ConfigError, match="hinge_image_text moves 'imagge', which matches no parameter's path"):
    training(Contrastive(loss=Hinge(), moves=("imagge",)))


def test_sogclr_keeps_a_normaliser_per_example_on_any_mesh():
  term = Sogclr(examples=40, gamma=((0, 0.5),))
  one, many = training(term), training(term, devices=8)
  batches = [host_batch(seed=0), host_batch(seed=0)]
  for batch, rows in zip(batches, (np.arange(16), np.arange(16)[::-1]), strict=True):
    batch["index"] = (rows * 2).astype(np.int32)
  memories = []
  for made in (one, many):
    state, seen = made.initial_state(), []
    for batch in batches:
      state, metrics = made.step(state, put_batch(batch, made.mesh))
      seen.append(float(metrics["sogclr_image_text"]))
    memories.append((seen, jax.device_get(state.memory["sogclr_image_text"])))
  (seen, kept), (seen_on_many, kept_on_many) = memories
  assert seen == pytest.approx(seen_on_many, rel=2e-5)
  for left, right in zip(kept, kept_on_many, strict=True):
    np.testing.assert_allclose(left, right, rtol=2e-5, atol=1e-6)
    assert np.isneginf(left[1::2]).all() and np.isfinite(left[:32:2]).all()
  said = embeddings(one.model, one.initial_state().params, batches[0])
  unseen = jnp.full(16, -jnp.inf)
  loss, rows = sogclr_loss(said["image"], said["text"], (unseen, unseen), logit_scale=SCALE, gamma=0.5)
  assert seen[0] == pytest.approx(float(loss), rel=1e-5)
  later = one.step(one.initial_state(), put_batch(batches[0], one.mesh))[0].memory["sogclr_image_text"]
  np.testing.assert_allclose(later[0][:32:2], rows[0], rtol=1e-4, atol=1e-5)


def test_sogclr_takes_the_number_of_examples_from_the_data():
  assert all(term.fitted(num_records=7, learnt={}).examples == 7 for term in (Sogclr(), Sogclr(examples=7)))
  with pytest.raises(ConfigError, match="was set to 8 examples, but the data has 7"):
    Sogclr(examples=8).fitted(num_records=7, learnt={})
  with pytest.raises(ConfigError, match="keeps a value per training example"):
    training(Sogclr())
  with pytest.raises(ValueError, match="shares in"):
    Sogclr(gamma=((0, 0.0),))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
  """A run of two steps, whose space has another dimension than the student's."""
  made = experiment(run=dict(workdir=tmp_path_factory.mktemp("teacher"), steps=2))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("mmjax.train.loop.prepare", prepare)
    return train(dataclasses.replace(made, model=dataclasses.replace(STILL, embed_dim=24))).run


def test_distillation_learns_from_a_frozen_run(teacher):
  student = dataclasses.replace(teacher.experiment.model, embed_dim=8)
  term = Distillation(of=str(teacher.workdir))
  made = prepare(dataclasses.replace(with_terms(Contrastive(), term), model=student), devices=jax.devices()[:1])
  assert made.shapes.memory is None  # a teacher's parameters are in no checkpoint
  batch, params = host_batch(), jax.device_get(made.initial_state().params)
  _, metrics = made.step(made.initial_state(), put_batch(batch, made.mesh))
  ours, theirs = embeddings(made.model, params, batch), embeddings(teacher.model, teacher.params, batch)
  scale = teacher.model.apply({"params": teacher.params}, method="logit_scale")
  given = (ours["image"], ours["text"], theirs["image"], theirs["text"])
  expected = distillation_loss(*given, logit_scale=SCALE, teacher_scale=scale)
  assert float(metrics["distillation_image_text"]) == pytest.approx(float(expected), rel=1e-5)


def test_features_of_a_frozen_run_are_learned_by_a_projection(teacher):
  student = dataclasses.replace(teacher.experiment.model, embed_dim=8)
  term = FeatureDistillation(of=str(teacher.workdir), project_to=24)
  made = prepare(dataclasses.replace(with_terms(term), model=student), devices=jax.devices()[:1])
  batch, params = host_batch(), jax.device_get(made.initial_state().params)
  projection = params["terms"]["features_image_text"]
  assert projection.shape == (8, 24)
  state, metrics = made.step(made.initial_state(), put_batch(batch, made.mesh))
  ours, theirs = embeddings(made.model, params, batch), embeddings(teacher.model, teacher.params, batch)
  losses = []
  for name in ("image", "text"):
    rows, targets = np.float64(ours[name]) @ projection, np.float64(theirs[name])
    cosines = (rows * targets).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(targets, axis=1)
    losses.append(np.mean(1 - cosines))
  assert float(metrics["features_image_text"]) == pytest.approx(np.mean(losses), rel=1e-5)
  moments = {parameter_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)}
  (moment,) = [leaf for path, leaf in moments.items() if "mu/terms/" in path]
  assert np.abs(moment).max() > 0  # it is trained, as the model is


def test_features_of_another_width_need_a_projection(teacher):
  student = dataclasses.replace(teacher.experiment.model, embed_dim=8)
  made = prepare(dataclasses.replace(with_terms(FeatureDistillation(of=str(teacher.workdir))), model=student))
  with pytest.raises(ValueError, match="have 8 dimensions, those of the teacher 24: set .*project-to 24"):
    made.step.lower(made.shapes, put_batch(host_batch(), made.mesh))


def test_a_teacher_that_reads_other_images_or_words_is_refused(teacher):
  term = Distillation(of=str(teacher.workdir))
  with pytest.raises(ConfigError, match="takes images of 16 pixels, the model of 24"):
    small = dataclasses.replace(STILL, image=dataclasses.replace(STILL.image, image_size=24))
    prepare(dataclasses.replace(with_terms(term), model=small))
  with pytest.raises(ValueError, match="needs a teacher: set `of`"):
    Distillation()
  teachers = prepare(dataclasses.replace(with_terms(term), model=teacher.experiment.model)).step.teachers
  check_tokenizers(teachers, teacher.tokenizer)
  other = dataclasses.replace(teacher.tokenizer.config, lowercase=False)
  with pytest.raises(ConfigError, match="has another tokenizer than this run"):
    check_tokenizers(teachers, Tokenizer(teacher.tokenizer._engine, other))


@pytest.mark.parametrize(
  ("terms", "said"),
  [
    (
      (Answer(),),
      r"the objective answer \(Answer\) asks the model for fuse, answer_logits, model.num_answers, which "
      r"TwoTowerConfig \(--model two_tower\) does not have: choose another model \(.*vqa",
    ),
    ((Matching(group=2),), r"the objective matching .* asks the model for fuse, match_logits, .* \(albef, .*blip"),
  ],
)
def test_a_term_that_asks_a_model_for_what_it_lacks_is_named_before_the_first_step(terms, said):
  with pytest.raises(ConfigError, match=said):
    prepare(with_terms(*terms))


class Shouts(Protocol):
  def shout(self): ...


class ShoutsLouder(Shouts, Protocol):
  settings = ("text.volume",)


@dataclasses.dataclass(frozen=True)
class Reading(ExampleTerm):
  asked: type = Shouts

  name, needs, reads = "reading", ("text",), ("text",)

  @property
  def asks(self):
    return (self.asked,)


@dataclasses.dataclass(frozen=True)
class WriterWithoutText(ModelConfig):
  def build(self):
    return SilentWriter(self)


class SilentWriter(nn.Module):
  config: WriterWithoutText

  def encode(self, batch, *, rng=None): ...

  def decode(self, ids, context, *, rng=None, cache=None, text=None): ...

  def empty_cache(self, batch_size, length): ...


def test_methods_of_inherited_protocols_and_settings_are_asked_for():
  louder = "asks the model for shout, model.text.volume, which .*: no model of mmjax has it: define one, or remove"
  with pytest.raises(ConfigError, match=louder):
    check_model(with_terms(Reading(asked=ShoutsLouder)))
  writer = dataclasses.replace(EXPERIMENT, model=WriterWithoutText(), objectives=(Caption(image=False),))
  with pytest.raises(ConfigError, match="asks the model for model.text.vocab_size, model.text.pad_id, .*coca.*gpt"):
    check_model(writer)


def test_models_with_the_methods_of_a_protocol_have_its_settings():
  """So that a term never fails for a setting, in a model that has the methods. Members decide what an ensemble has."""
  kinds = [kind for kind in of_base(ModelConfig, KINDS) if kind is not EnsembleConfig]
  known = [each for each in vars(protocols).values() if isinstance(each, type) and set(vars(each)) & {"settings"}]
  models = [default(kind, "").build() for kind in kinds]
  lacking = [
    (type(model).__name__, protocol.__name__, missing(model, protocol))
    for model in models
    for protocol in known
    if protocol is not AlignsWords and not missing(type(model), protocol) and missing(model, protocol)
  ]
  assert len(models) > 20 and len(known) > 7 and not lacking


def test_columns_towers_and_terms_that_do_not_fit_are_named():
  check = lambda of, tokenizer=None: check_needs(of, None, tokenizer)
  with pytest.raises(ConfigError, match="compares 'sound', for which the model has no tower; it has image, text"):
    check(
      dataclasses.replace(
        with_terms(Sounding()), model=SharedSpaceConfig(towers={"image": STILL.image, "text": STILL.text})
      )
    )
  with pytest.raises(ConfigError, match="reads the encoding of 'text', for which the model has no tower; it has image"):
    check(dataclasses.replace(with_terms(Reading()), model=SharedSpaceConfig(towers={"image": STILL.image})))
  with pytest.raises(ConfigError, match=r"the column 'text' gives int32 \[8\] a row, and .* takes int32 \[9\]"):
    text = dataclasses.replace(EXPERIMENT.model.text, max_length=9)
    check(dataclasses.replace(EXPERIMENT, model=dataclasses.replace(EXPERIMENT.model, text=text)))
  with pytest.raises(ConfigError, match=r"the column 'image' makes .* no tower that takes images: leave it out of"):
    words = SharedSpaceConfig(towers={"text": STILL.text})
    check(dataclasses.replace(with_terms(dataclasses.replace(Sounding(), between=("text", "text"))), model=words))


@dataclasses.dataclass(frozen=True)
class Sounding(BatchTerm):
  between: tuple[str, str] = ("sound", "text")

  name, needs = "sounding", ("text",)

  def over_batch(self, whole):
    return clip_loss(whole.embeddings["sound"], whole.embeddings["text"], logit_scale=1.0), None
