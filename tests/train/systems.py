"""Every system, tiny, and two steps of its training: what the tests of steps share."""

import dataclasses
import functools

import jax
import numpy as np
import optax

from mmjax.catalogue import KINDS
from mmjax.encoders.bert import bert_config
from mmjax.encoders.embedding_bag import EmbeddingBagConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.fusion.config import FusionConfig
from mmjax.kinds import of_base
from mmjax.models.albef import AlbefConfig
from mmjax.models.bert import BertConfig
from mmjax.models.blip import BlipConfig
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.coca import CocaConfig
from mmjax.models.flava import FlavaConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.recommender import RecommenderConfig
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
  SampledSoftmax,
  Softmax,
  SwappedMatching,
  TargetText,
  Unicl,
)
from mmjax.parallel.mesh import ParallelConfig, put_batch
from mmjax.settings import OptimizerConfig
from mmjax.train.setup import Training, prepare
from mmjax.train.state import TrainState

ROWS, LENGTH, VOCABULARY, SIDE = 16, 8, 24, 8
CONSTANT = dict(warmup_steps=0, schedule="constant")
ADAM_AND_AVERAGE = OptimizerConfig(**CONSTANT, ema_decay=0.5)
DESCENT = optax.scale(100.0)  # 0.1 times the gradient; it keeps nothing, and so compiles sooner than Adam
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
BAGS = {
  "history": EmbeddingBagConfig(width=8, length=3, names=9, dropout=0.1),
  "item": EmbeddingBagConfig(width=8, names=9),
}
SYSTEMS["recommender"] = (
  RecommenderConfig(towers=BAGS, embed_dim=8),
  (SampledSoftmax(inputs=("history", "item", "item2"), seen="history", mixed=True, slots=16, items=9),),
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
    optimizer=ADAM_AND_AVERAGE if system == "albef" else OptimizerConfig(**CONSTANT),
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
    "history": rng.integers(0, 11, (ROWS, 3), dtype=np.int32),
    "item": rng.integers(2, 11, (ROWS, 1), dtype=np.int32),
    "item2": rng.integers(2, 11, (ROWS, 1), dtype=np.int32),
  }


@functools.lru_cache(maxsize=2)
def prepared(of: Experiment, devices: int) -> Training:
  """The step of an experiment: with Adam where a term needs the moving average, and with plain descent elsewhere."""
  return prepare(of, None if of.optimizer.ema_decay else DESCENT, jax.devices()[:devices])


@functools.cache
def beginning(of: Experiment) -> TrainState:
  """The state before the first step, on the host: one device makes it, as the others would only compile it again."""
  return jax.device_get(prepared(of, 1).initial_state())


@functools.cache  # a compilation takes seconds
def two_steps(of: Experiment, devices: int = 1) -> list[dict[str, float]]:
  training = prepared(of, devices)
  alone = dataclasses.replace(of, parallel=ParallelConfig())
  state, seen = jax.device_put(beginning(alone), training.shardings, may_alias=False), []
  for _ in range(2):
    state, metrics = training.step(state, put_batch(batch(), training.mesh))
    seen.append({name: float(value) for name, value in metrics.items() if name not in ("bad_parameters", "usual_loss")})
  return seen
