"""Every system trains by the one step: two steps are the same on any mesh, in any number of microbatches."""

import dataclasses
import functools
import math
import types

import jax
import numpy as np
import optax
import pytest

from mmjax.catalogue import KINDS
from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, RunConfig, from_json, to_json
from mmjax.fusion.config import FusionConfig
from mmjax.kinds import of_base
from mmjax.models.albef import AlbefConfig
from mmjax.models.bert import BertConfig
from mmjax.models.blip import BlipConfig
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.coca import CocaConfig
from mmjax.models.flava import FlavaConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.models.vilt import PatchesConfig, ViltConfig
from mmjax.models.vqa import VqaConfig
from mmjax.nn.words import WordsConfig
from mmjax.objectives import (
  Answer,
  AnswerRanking,
  AnswerScores,
  AnswerText,
  Caption,
  Classify,
  Contrastive,
  Hinge,
  MaskedBoth,
  MaskedPatches,
  MaskedWords,
  Matching,
  MomentumContrastive,
  NextSentence,
  PairLoss,
  Relevance,
  Softmax,
  SwappedMatching,
  TargetText,
  Unicl,
)
from mmjax.parallel.mesh import ParallelConfig, put_batch
from mmjax.settings import OptimizerConfig
from mmjax.train.setup import Training, check_needs, prepare
from mmjax.train.state import TrainState
from tests.golden import values


@pytest.fixture(scope="module", autouse=True)
def quick_compilations():
  """Seconds instead of minutes: these steps are small, and run twice."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


SGD = optax.sgd(0.1)  # keeps nothing, and so compiles sooner than Adam
ROWS, LENGTH, VOCABULARY, SIDE = 16, 8, 24, 8
SIZE = dict(width=16, depth=1, num_heads=2)
WORDS = WordsConfig(**SIZE, vocab_size=VOCABULARY, max_length=LENGTH)
IMAGE = ViTConfig(**SIZE, image_size=SIDE, patch_size=4, pool="cls", drop_path=0.1)
TEXT = dict(vocab_size=VOCABULARY, max_length=LENGTH, mask_id=3, special_ids=(0, 1, 2, 3), eos_id=1, tanh_pool=False)
BERT = bert_config(**SIZE, **TEXT)
VIEWS = ("image", "image2")
SYSTEMS = {
  "albef": (
    AlbefConfig(image=IMAGE, text=BERT, fusion_depth=1, embed_dim=8),
    (MomentumContrastive(queue_size=24, alpha=((0, 0.2), (4, 0.4))), Matching(group=2), MaskedWords(alpha=((0, 0.4),))),
  ),
  "bert": (BertConfig(BERT), (MaskedWords(image=False, segments=True), NextSentence())),
  "blip": (BlipConfig(image=IMAGE, text=WORDS, embed_dim=8), (Contrastive(), Matching(group=2), Caption())),
  "coca": (
    CocaConfig(image=dataclasses.replace(IMAGE, pool="mean"), text=WORDS, multimodal_depth=1, caption_queries=2),
    (Contrastive(), Caption(weight=2.0, schedule=((0, 0.5), (4, 1.0)))),
  ),
  "vqa": (
    VqaConfig(
      image=dataclasses.replace(IMAGE, pool="mean"),
      text=BERT,
      fusion=FusionConfig(**SIZE),
      num_answers=5,
    ),
    (Answer(), Relevance()),
  ),
  "classifier": (
    ClassifierConfig(towers={"image": IMAGE, "text": BERT}, label="group", num_classes=5),
    (
      Classify(
        inputs=("image", "text"), label="group", class_weights=(1, 2, 1, 0.5, 1), mixup=0.2, cutmix=1.0, group=2
      ),
    ),
  ),
  "flava": (FlavaConfig(image=IMAGE, text=BERT, fusion_depth=1, embed_dim=8), (MaskedPatches(), MaskedBoth())),
  "vilt": (ViltConfig(PatchesConfig(SIDE, 4), BERT), (Matching(group=2, hard=False), MaskedWords())),
  "gpt": (GptConfig(WORDS), (Caption(image=False),)),
  "seq2seq": (
    Seq2SeqConfig(dataclasses.replace(WORDS, scale_embedding=True, positions="sinusoidal"), encoder_depth=1),
    (TargetText(),),
  ),
  "two_tower": (
    TwoTowerConfig(
      image=dataclasses.replace(IMAGE, pool="map"),
      text=TextConfig(**SIZE, vocab_size=VOCABULARY, max_length=LENGTH, eos_id=1),
      embed_dim=8,
      init_logit_bias=-3.0,
    ),
    (
      *(Contrastive(loss=loss()) for loss in of_base(PairLoss, KINDS)),
      *(Contrastive(loss=loss, between=VIEWS, mask_same_concept=True, tile_size=4) for loss in (Softmax(), Hinge())),
      Contrastive(loss=Unicl(), between=VIEWS, labels="group"),
    ),
  ),
  "vqa_writer": (
    VqaConfig(
      image=dataclasses.replace(IMAGE, pool="mean"),
      text=BERT,
      fusion=FusionConfig(**SIZE),
      num_answers=5,
      decoder_depth=1,
    ),
    (AnswerText(),),
  ),
}
SYSTEMS["vilt_paper"] = (
  ViltConfig(PatchesConfig(SIDE, 4), BERT, image_class_token=True),
  (SwappedMatching(among="global"), MaskedWords(whole_words=True)),
)
SYSTEMS["vqa_soft"] = (
  SYSTEMS["vqa_writer"][0],
  (AnswerScores(weights="agreement"), AnswerRanking(), AnswerText(weights="agreement")),
)


def experiment(system: str, **fields) -> Experiment:
  model, objectives = SYSTEMS[system]
  return Experiment(
    model=model,
    objectives=objectives,
    optimizer=OptimizerConfig(warmup_steps=0, schedule="constant", ema_decay=0.5),
    run=RunConfig(batch_size=ROWS, steps=4),
    **fields,
  )


def batch() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  ids = rng.integers(4, VOCABULARY, (ROWS, LENGTH), dtype=np.int32)
  ids[:, 0], ids[3:9, 5:] = 2, 0
  ids[9] = 0  # a text of padding alone
  return {
    "image": rng.normal(size=(ROWS, SIDE, SIDE, 3)).astype(np.float32),
    "text": ids,
    "segment": (np.arange(LENGTH) > 3).astype(np.int32)[None].repeat(ROWS, 0),
    "next": rng.integers(0, 2, ROWS, dtype=np.int32),
    "index": np.arange(ROWS, dtype=np.int32),
    "answer": rng.integers(-1, 5, ROWS, dtype=np.int32),
    "relevance": (rng.random((ROWS, SIDE, SIDE)) < 0.1).astype(np.float32),
    "concept": np.arange(ROWS, dtype=np.int32) % 13,
    "group": np.arange(ROWS, dtype=np.int32) % 5,
    "answer_text": ids[::-1, :6],
    "target": ids[::-1],
    "text_words": np.where(ids < 4, -1, np.arange(LENGTH, dtype=np.int32) // 2).astype(np.int32),
    "answer_candidates": np.stack([ids[::-1, :6], ids[:, :6]], 1),
    "agreement": (np.arange(ROWS) % 4).astype(np.float32) / 3,
    "image2": rng.normal(size=(ROWS, SIDE, SIDE, 3)).astype(np.float32),
    "answer_scores": rng.integers(0, 4, (ROWS, 5)).astype(np.float32) / 3,
  }


@functools.lru_cache(maxsize=2)
def prepared(of: Experiment, devices: int, core: optax.GradientTransformation | None = None) -> Training:
  return prepare(of, core, jax.devices()[:devices])


@functools.cache
def beginning(of: Experiment, core: optax.GradientTransformation | None = None) -> TrainState:
  """The state before the first step, on the host: one device makes it, as the others would only compile it again."""
  return jax.device_get(prepared(of, 1, core).initial_state())


@functools.cache  # a compilation takes seconds
def two_steps(
  of: Experiment, devices: int = 1, core: optax.GradientTransformation | None = None
) -> list[dict[str, float]]:
  training = prepared(of, devices, core)
  alone = dataclasses.replace(of, parallel=ParallelConfig())
  state, seen = jax.device_put(beginning(alone, core), training.shardings, may_alias=False), []
  for _ in range(2):
    state, metrics = training.step(state, put_batch(batch(), training.mesh))
    seen.append({name: float(value) for name, value in metrics.items() if name not in ("bad_parameters", "usual_loss")})
  return seen


# Every kind of term, every axis of the mesh and microbatches; tests/models has each model by itself on eight devices,
# and tests/models/test_captioners_train.py CoCa.
@pytest.mark.parametrize(
  ("system", "parallel"),
  [
    ("albef", dict(fsdp=2)),
    ("blip", dict(fsdp=2, model=2, microbatches=2)),
    ("classifier", dict(fsdp=2)),
    ("vqa_soft", dict(microbatches=2)),
    ("vilt_paper", dict(fsdp=2)),
  ],
)
def test_two_steps_do_not_depend_on_the_mesh(system, parallel):
  one = two_steps(experiment(system))
  assert all(math.isfinite(value) for step in one for value in step.values())
  other = two_steps(experiment(system, parallel=ParallelConfig(**parallel)), 8)
  for left, right in zip(one, other, strict=True):
    assert left == pytest.approx(right, rel=2e-5, abs=2e-6)


@pytest.mark.parametrize(
  ("among", "devices", "parallel"),
  [("global", 4, dict(fsdp=2, microbatches=2)), ("device", 1, dict(microbatches=2))],
)
def test_negatives_from_the_whole_batch_do_not_depend_on_devices_and_microbatches(among, devices, parallel):
  without_average = OptimizerConfig(warmup_steps=0, schedule="constant")
  with_term = lambda term, **fields: dataclasses.replace(
    experiment("albef", **fields), objectives=(term,), optimizer=without_average
  )
  one = two_steps(with_term(Matching(group=ROWS)), core=SGD)  # one group on one device: the same candidates and draws
  other = two_steps(with_term(Matching(among=among), parallel=ParallelConfig(**parallel)), devices, SGD)
  for left, right in zip(one, other, strict=True):
    assert left == {name: pytest.approx(right[name], rel=2e-5, abs=2e-6) for name in left}


@pytest.mark.parametrize(("system", "balance"), [*((name, "fixed") for name in SYSTEMS), ("bert", "uncertainty")])
def test_two_steps_are_the_golden_ones(system, balance):
  fields = {} if balance == "fixed" else {"balance": balance}
  values.check("steps", f"{system}, {balance}", two_steps(experiment(system, **fields)), rel=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_configuration_survives_its_json(system):
  assert from_json(to_json(experiment(system))) == experiment(system)


def test_a_schedule_weighs_a_term_step_by_step():
  seen = two_steps(experiment("coca"))
  for step, metrics in enumerate(seen):
    weight = 2.0 * (0.5 + step / 8)
    assert metrics["loss"] == pytest.approx(metrics["softmax_image_text"] + weight * metrics["caption"], rel=1e-6)


def test_uncertainty_weighs_terms_by_learned_variances():
  seen = two_steps(experiment("bert", balance="uncertainty"))
  plain = sum(seen[0][name] for name in ("masked_words_text", "next_sentence"))
  assert seen[0]["loss"] == pytest.approx(plain, rel=1e-6)  # variances begin at 1
  later = sum(seen[1][name] for name in ("masked_words_text", "next_sentence"))
  assert seen[1]["loss"] != pytest.approx(later, rel=1e-6)


def test_the_queue_holds_what_the_moving_average_said():
  training = prepare(experiment("albef"), devices=jax.devices()[:1])
  state = jax.device_put(beginning(experiment("albef")), training.shardings, may_alias=False)
  teacher = beginning(experiment("albef")).ema
  state, _ = training.step(state, put_batch(batch(), training.mesh))
  images, texts = state.memory["momentum_image_text"]
  assert int(images.filled) == ROWS and int(images.pointer) == ROWS
  said = jax.jit(functools.partial(training.model.apply, method=lambda m, b: m.project(m.encode(b))))
  embeddings = said({"params": teacher}, batch())
  np.testing.assert_allclose(images.features[:ROWS], embeddings["image"], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(texts.features[:ROWS], embeddings["text"], rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(texts.concept[:ROWS], batch()["concept"])


def test_terms_that_need_what_there_is_not_are_refused():
  with pytest.raises(ValueError, match="ema-decay"):
    dataclasses.replace(experiment("albef"), optimizer=OptimizerConfig())
  with pytest.raises(ValueError, match="looks at 16 rows together"):
    prepare(dataclasses.replace(experiment("blip"), objectives=(Matching(),)), devices=jax.devices()[:2])


@pytest.mark.parametrize(
  ("system", "features", "said"),
  [
    ("vqa", ("image", "text"), "answer reads 'answer'"),
    ("bert", ("text", "segment", "next"), "mask-token"),
    ("coca", ("image", "text"), "bos-token"),
    ("seq2seq", ("image", "text"), "target_text reads 'target'"),
  ],
)
def test_what_the_data_lacks_is_named_before_the_first_step(system, features, said):
  with pytest.raises(ConfigError, match=said):
    check_needs(
      experiment(system), types.SimpleNamespace(features=features), types.SimpleNamespace(mask_id=None, begin_id=None)
    )
