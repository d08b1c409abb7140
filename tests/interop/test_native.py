"""mmjax's own format holds every model: what a run may train is saved and loaded bit for bit."""

import dataclasses

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.catalogue import KINDS
from mmjax.encoders import (
  ConvGridConfig,
  EfficientNetConfig,
  HtsatConfig,
  SpeechConfig,
  SwinConfig,
  TextConfig,
  VideoConfig,
  bert_config,
)
from mmjax.fusion.config import FusionConfig
from mmjax.interop.__main__ import main
from mmjax.interop.shapes import flat_shapes, flatten, unflatten
from mmjax.kinds import of_base
from mmjax.models import TwoTowerConfig
from mmjax.models.albef import AlbefConfig
from mmjax.models.align import AlignConfig
from mmjax.models.bert import BertConfig
from mmjax.models.blip import BlipConfig
from mmjax.models.blip2 import Blip2RetrievalConfig, QFormerConfig
from mmjax.models.blip2_captioner import Blip2CaptionerConfig
from mmjax.models.blip_transformers import BlipCaptionerConfig, BlipPairConfig, BlipQuestionConfig, BlipRetrievalConfig
from mmjax.models.bridgetower import BridgeTowerConfig
from mmjax.models.clap import ClapConfig
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.clip4clip import Clip4ClipConfig
from mmjax.models.coca import CocaConfig
from mmjax.models.coca_open_clip import OpenClipCocaConfig
from mmjax.models.config import ModelConfig
from mmjax.models.ensemble import EnsembleConfig
from mmjax.models.flamingo import FlamingoConfig
from mmjax.models.flava import FlavaConfig
from mmjax.models.flava_transformers import PublishedFlavaConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.image_codes import ImageCodesConfig
from mmjax.models.interleaved import InterleavedWordsConfig
from mmjax.models.pair import PairConfig
from mmjax.models.predictor import PredictorConfig
from mmjax.models.projector import ProjectorConfig, QFormerBridge
from mmjax.models.quantizers import Fsq, VectorQuantizer
from mmjax.models.recognizer import RecognizerConfig, SymbolsConfig
from mmjax.models.recommender import RecommenderConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.models.text_to_image import TextToImageConfig
from mmjax.models.verifier import VerifierConfig
from mmjax.models.vilt import PatchesConfig, ViltConfig
from mmjax.models.vilt_transformers import PublishedViltConfig
from mmjax.models.vqa import VqaConfig
from mmjax.models.whisper import WhisperConfig
from mmjax.models.writer import WriterConfig
from mmjax.models.xclip import XClipConfig
from mmjax.nn.transformer import TransformerConfig
from tests.interop.references import assert_same_params
from tests.models.decoders import IMAGE, TEXT

CLS = dataclasses.replace(IMAGE, pool="cls", class_position=True)
SIZE = dict(width=12, depth=2, num_heads=2, mlp_dim=12, vocab_size=11, max_length=8)
CODER = ImageCodesConfig(ConvGridConfig(image_size=8, width=4), Fsq((3, 3)))
READER = TextConfig(**SIZE, causal=False, pool="first", eos_id=1)
CONFIGS = (
  TwoTowerConfig(image=IMAGE, text=READER, embed_dim=4),
  GptConfig(text=TEXT),
  Seq2SeqConfig(text=TEXT, encoder_depth=1),
  BlipConfig(image=CLS, text=TEXT, embed_dim=4),
  BlipRetrievalConfig(image=CLS, text=TEXT, embed_dim=4),
  BlipCaptionerConfig(image=CLS, text=TEXT),
  BlipPairConfig(image=CLS, text=bert_config(**SIZE, token_types=0), embed_dim=4),
  BlipQuestionConfig(image=CLS, text=TEXT),
  Blip2RetrievalConfig(CLS, QFormerConfig(**SIZE, queries=2), embed_dim=4),
  Blip2CaptionerConfig(CLS, QFormerConfig(**SIZE, queries=2), dataclasses.replace(TEXT, padding_positions=2)),
  Blip2CaptionerConfig(CLS, QFormerConfig(**SIZE, queries=2), TEXT, encoder_depth=1),
  BridgeTowerConfig(
    dataclasses.replace(CLS, depth=2),
    bert_config(**SIZE),
    TransformerConfig(width=12, depth=2, num_heads=2, mlp_dim=12, norm="post"),
    head="contrastive",
    embed_dim=4,
  ),
  AlignConfig(
    image=EfficientNetConfig(33, 0.1, 0.1, lite=False, head=False, norm="frozen"),
    text=bert_config(**SIZE, tanh_pool=False),
    embed_dim=32,
  ),
  ClapConfig(
    audio=HtsatConfig(8, SwinConfig(16, 2, 8, (1, 1), (2, 4), 4), norm="frozen"), text=bert_config(**SIZE), embed_dim=4
  ),
  PublishedFlavaConfig(
    image=CLS,
    text=bert_config(**SIZE, norm="pre"),
    fusion=TransformerConfig(width=8, depth=1, num_heads=2, mlp_dim=8),
    embed_dim=4,
  ),
  PublishedViltConfig(
    PatchesConfig(8, 4), bert_config(**SIZE, norm="pre", tanh_pool=False), num_answers=3, head="answers"
  ),
  CocaConfig(image=IMAGE, text=TEXT, multimodal_depth=3, caption_queries=2, embed_dim=4),
  CocaConfig(image=IMAGE, text=TEXT, multimodal_depth=1, caption_queries=2, embed_dim=4, poolers="cascade"),
  OpenClipCocaConfig(
    image=dataclasses.replace(IMAGE, pool="queries", pool_queries=2, pool_width=4, pool_heads=2),
    text=TEXT,
    multimodal_depth=2,
    embed_dim=4,
  ),
  FlavaConfig(image=CLS, text=READER, embed_dim=4, fusion_depth=1),
  ViltConfig(image=PatchesConfig(8, 4), text=READER),
  VqaConfig(
    image=IMAGE, text=READER, fusion=FusionConfig(width=12, depth=1, num_heads=2), num_answers=3, decoder_depth=1
  ),
  AlbefConfig(image=CLS, text=bert_config(**SIZE, norm="pre", input_norm=False, token_types=0, tanh_pool=False)),
  BertConfig(text=bert_config(**SIZE)),
  PairConfig(image=IMAGE, fusion=FusionConfig(width=12, depth=1, num_heads=2)),
  ClassifierConfig(towers={"image": IMAGE, "text": READER}, num_classes=3),
  EnsembleConfig(models=(ClassifierConfig(towers={"image": IMAGE}, num_classes=3),) * 2),
  SharedSpaceConfig(towers={"image": IMAGE, "text": READER}, embed_dim=4, init_logit_bias=-1.0),
  PredictorConfig(towers={"image": IMAGE, "text": READER}),
  RecommenderConfig(embed_dim=4),
  WhisperConfig(audio=SpeechConfig(width=12, depth=1, num_heads=2, mel_bins=4, frames=8), text=TEXT, begin_id=2),
  RecognizerConfig(
    SpeechConfig(width=12, depth=1, num_heads=2, mel_bins=4, frames=8, masked=True), SymbolsConfig(9, 2, (1, 2))
  ),
  VerifierConfig(towers={"image": IMAGE}, embed_dim=4, num_identities=3),
  Clip4ClipConfig(
    image=IMAGE, text=READER, embed_dim=4, temporal="tight", frames=2, temporal_depth=1, temporal_heads=2
  ),
  XClipConfig(
    image=dataclasses.replace(CLS, input_norm=True),
    text=dataclasses.replace(READER, causal=True, pool="argmax", mask_padding=False),
    order=TransformerConfig(width=4, depth=1, num_heads=2),
    frames=2,
    prompt_depth=1,
    prompt_heads=2,
  ),
  WriterConfig(towers={"video": VideoConfig(frame=IMAGE, frames=2, temporal="lstm", output="patches")}, text=TEXT),
  dataclasses.replace(CODER, quantizer=VectorQuantizer(codes=4, dim=2), discriminator=CODER.image),
  TextToImageConfig(text=TEXT, image=CODER),
  ProjectorConfig(
    image=IMAGE,
    text=InterleavedWordsConfig(**dataclasses.asdict(TEXT), image_id=9),
    bridge=QFormerBridge(QFormerConfig(**SIZE, queries=2)),
    images=2,
  ),
  FlamingoConfig(
    image=IMAGE,
    text=InterleavedWordsConfig(**dataclasses.asdict(TEXT), image_id=9),
    resampler=TransformerConfig(width=12, depth=1, num_heads=2),
    latents=2,
    images=2,
    frames=2,
  ),
)


def test_no_model_is_left_out():
  assert {type(config) for config in CONFIGS} == set(of_base(ModelConfig, KINDS))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_every_model_is_held(config, tmp_path, capsys):
  batch = config.example(1)
  shapes = flatten(jax.eval_shape(config.build().init, jax.random.key(0), batch)["params"])
  rng = np.random.default_rng(0)
  params = unflatten({name: 0.1 * rng.standard_normal(s.shape).astype(np.float32) for name, s in shapes.items()})
  interop.save(config.build(), params, tmp_path, format="mmjax")
  model, again = interop.load(tmp_path)
  assert model.config == config and dict(flat_shapes(config)) == {name: s.shape for name, s in shapes.items()}
  assert_same_params(again, params)
  assert main(["inspect", str(tmp_path)]) == 0
  assert type(config).__name__ in capsys.readouterr().out


def test_a_model_without_texts_has_no_tokenizer(tmp_path):
  params = CLS.build().init(jax.random.key(0), CLS.example(1))["params"]
  interop.save(CLS.build(), params, tmp_path)
  with pytest.raises(interop.InteropError, match="ViTConfig takes no texts"):
    _ = interop.load_pretrained(tmp_path).tokenizer
