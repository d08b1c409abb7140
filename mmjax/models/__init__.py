"""Complete models of published systems: encoders, fusion and heads."""

from mmjax.models.albef import AlbefConfig
from mmjax.models.align import AlignConfig
from mmjax.models.bert import BertConfig
from mmjax.models.blip import BlipConfig
from mmjax.models.blip2 import Blip2RetrievalConfig
from mmjax.models.blip2_captioner import Blip2CaptionerConfig
from mmjax.models.blip_transformers import BlipCaptionerConfig, BlipPairConfig, BlipQuestionConfig, BlipRetrievalConfig
from mmjax.models.bridgetower import BridgeTowerConfig
from mmjax.models.clap import ClapConfig
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.clip4clip import Clip4ClipConfig
from mmjax.models.coca import CocaConfig
from mmjax.models.coca_open_clip import OpenClipCocaConfig
from mmjax.models.config import ModelConfig
from mmjax.models.drawing import DrawConfig
from mmjax.models.ensemble import EnsembleConfig
from mmjax.models.flamingo import FlamingoConfig
from mmjax.models.flava import FlavaConfig
from mmjax.models.flava_transformers import PublishedFlavaConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.image_codes import ImageCodesConfig
from mmjax.models.interleaved import InterleavedWordsConfig
from mmjax.models.next_word import GenerateConfig
from mmjax.models.pair import PairConfig
from mmjax.models.predictor import PredictorConfig
from mmjax.models.projector import BridgeConfig, LinearBridge, MlpBridge, ProjectorConfig, QFormerBridge
from mmjax.models.quantizers import Fsq, GumbelQuantizer, QuantizerConfig, VectorQuantizer
from mmjax.models.recognizer import RecognizerConfig, SymbolsConfig
from mmjax.models.recommender import RecommenderConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.models.sharding import SHARDING_RULES
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.models.text_to_image import TextToImageConfig
from mmjax.models.two_tower import TwoTower, TwoTowerConfig
from mmjax.models.verifier import VerifierConfig
from mmjax.models.vilt import PatchesConfig, ViltConfig
from mmjax.models.vilt_transformers import PublishedViltConfig
from mmjax.models.vqa import VqaConfig
from mmjax.models.whisper import WhisperConfig
from mmjax.models.writer import WriterConfig
from mmjax.models.xclip import XClipConfig

__all__ = [
  "SHARDING_RULES",
  "AlbefConfig",
  "AlignConfig",
  "BertConfig",
  "Blip2CaptionerConfig",
  "Blip2RetrievalConfig",
  "BlipCaptionerConfig",
  "BlipConfig",
  "BlipPairConfig",
  "BlipQuestionConfig",
  "BlipRetrievalConfig",
  "BridgeConfig",
  "BridgeTowerConfig",
  "ClapConfig",
  "ClassifierConfig",
  "Clip4ClipConfig",
  "CocaConfig",
  "DrawConfig",
  "EnsembleConfig",
  "FlamingoConfig",
  "FlavaConfig",
  "Fsq",
  "GenerateConfig",
  "GptConfig",
  "GumbelQuantizer",
  "ImageCodesConfig",
  "InterleavedWordsConfig",
  "LinearBridge",
  "MlpBridge",
  "ModelConfig",
  "OpenClipCocaConfig",
  "PairConfig",
  "PatchesConfig",
  "PredictorConfig",
  "ProjectorConfig",
  "PublishedFlavaConfig",
  "PublishedViltConfig",
  "QFormerBridge",
  "QuantizerConfig",
  "RecognizerConfig",
  "RecommenderConfig",
  "Seq2SeqConfig",
  "SharedSpaceConfig",
  "SymbolsConfig",
  "TextToImageConfig",
  "TwoTower",
  "TwoTowerConfig",
  "VectorQuantizer",
  "VerifierConfig",
  "ViltConfig",
  "VqaConfig",
  "WhisperConfig",
  "WriterConfig",
  "XClipConfig",
]
