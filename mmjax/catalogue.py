"""List of the classes in mmjax that an open field of a configuration may hold.

A class that a script defines is not listed here. Pass it to `mmjax.cli.main` and `mmjax.load_run` as `kinds=(Mine,)`.
"""

from mmjax.data.columns import answer, table, text
from mmjax.data.columns.class_label import ClassLabel
from mmjax.data.columns.codes import PatchCodes
from mmjax.data.columns.ids import Ids
from mmjax.data.columns.image import Image
from mmjax.data.columns.interleaved import Dialogue, Interleaved
from mmjax.data.columns.label import Label
from mmjax.data.columns.native_image import NativeImage
from mmjax.data.columns.sound import Sound
from mmjax.data.columns.video import Video
from mmjax.data.sound.features import Fbank, LogMel, Mfcc, WhisperMel
from mmjax.data.sources.class_folders import ClassFolders
from mmjax.data.sources.coco import Coco
from mmjax.data.sources.documents import Documents
from mmjax.data.sources.easy_vqa import EasyVqa
from mmjax.data.sources.emoji import Emoji
from mmjax.data.sources.flickr30k import Flickr30k
from mmjax.data.sources.folder import Folder
from mmjax.data.sources.instruments import Instruments
from mmjax.data.sources.interactions import InteractionFile
from mmjax.data.sources.movie_lens import MovieLens
from mmjax.data.sources.scenes import Scenes
from mmjax.data.sources.shards import Shards
from mmjax.data.sources.spoken_digits import SpokenDigits
from mmjax.data.sources.table_file import TableFile
from mmjax.data.sources.texts import Texts
from mmjax.data.sources.tfds import Tfds
from mmjax.data.sources.vqav2 import Vqav2
from mmjax.data.sources.weighted import Weighted
from mmjax.encoders.ast import AstConfig
from mmjax.encoders.classic_resnet import ClassicResNetConfig
from mmjax.encoders.conv_grid import ConvGridConfig
from mmjax.encoders.convnext import ConvNeXtConfig
from mmjax.encoders.efficientnet import EfficientNetConfig
from mmjax.encoders.embedding_bag import EmbeddingBagConfig
from mmjax.encoders.fastvit import FastViTConfig
from mmjax.encoders.htsat import HtsatConfig
from mmjax.encoders.modern_text import ModernTextConfig
from mmjax.encoders.naflex import NaFlexConfig
from mmjax.encoders.resnet import ResNetConfig
from mmjax.encoders.speech import SpeechConfig
from mmjax.encoders.swin import SwinConfig
from mmjax.encoders.table import FTTransformerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.video import VideoConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.evaluators.classified import ClassifiedExamples
from mmjax.evaluators.config import built_in
from mmjax.evaluators.drawn import DrawnScenes
from mmjax.evaluators.few_shot import FewShot
from mmjax.evaluators.pair_score_retrieval import PairScoreRetrieval
from mmjax.evaluators.probe import Probe
from mmjax.evaluators.reconstructed import ReconstructedImages
from mmjax.kinds import Kind
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
from mmjax.models.ensemble import EnsembleConfig
from mmjax.models.flamingo import FlamingoConfig
from mmjax.models.flava import FlavaConfig
from mmjax.models.flava_transformers import PublishedFlavaConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.image_codes import ImageCodesConfig
from mmjax.models.pair import PairConfig
from mmjax.models.predictor import PredictorConfig
from mmjax.models.projector import LinearBridge, MlpBridge, ProjectorConfig, QFormerBridge
from mmjax.models.quantizers import Fsq, GumbelQuantizer, VectorQuantizer
from mmjax.models.recognizer import RecognizerConfig
from mmjax.models.recommender import RecommenderConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.models.text_to_image import TextToImageConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.models.verifier import VerifierConfig
from mmjax.models.vilt import ViltConfig
from mmjax.models.vilt_transformers import PublishedViltConfig
from mmjax.models.vqa import VqaConfig
from mmjax.models.whisper import WhisperConfig
from mmjax.models.writer import WriterConfig
from mmjax.models.xclip import XClipConfig
from mmjax.objectives.terms import (
  adversarial,
  answers,
  classify,
  contrastive,
  ctc,
  distillation,
  draw,
  interleaved,
  language,
  margin_softmax,
  matching,
  members,
  momentum,
  pair_softmax,
  patches,
  reconstruct,
  regress,
  sampled_softmax,
  sogclr,
)
from mmjax.objectives.terms.pair_losses import (
  Align,
  Dcl,
  Focal,
  Hinge,
  SemiHard,
  Sigmoid,
  Softmax,
  Supcon,
  Triplet,
  Unicl,
)

KINDS: tuple[type[Kind], ...] = (
  # sources
  Emoji,
  Tfds,
  ClassFolders,
  Folder,
  Shards,
  Scenes,
  EasyVqa,
  Texts,
  SpokenDigits,
  Instruments,
  Coco,
  Vqav2,
  Flickr30k,
  Documents,
  TableFile,
  Weighted,
  InteractionFile,
  MovieLens,
  # columns
  Image,
  answer.Answer,
  answer.Weight,
  text.Caption,
  text.Question,
  text.SentencePair,
  text.Text,
  ClassLabel,
  Label,
  Sound,
  Video,
  PatchCodes,
  NativeImage,
  Interleaved,
  Dialogue,
  # features of sound
  LogMel,
  WhisperMel,
  Fbank,
  Mfcc,
  table.Number,
  table.Present,
  table.Table,
  Ids,
  # towers
  ViTConfig,
  ResNetConfig,
  ClassicResNetConfig,
  ConvNeXtConfig,
  ConvGridConfig,
  EfficientNetConfig,
  FastViTConfig,
  SwinConfig,
  AstConfig,
  HtsatConfig,
  TextConfig,
  ModernTextConfig,
  SpeechConfig,
  FTTransformerConfig,
  EmbeddingBagConfig,
  VideoConfig,
  NaFlexConfig,
  # models
  TwoTowerConfig,
  SharedSpaceConfig,
  AlbefConfig,
  AlignConfig,
  BertConfig,
  BlipConfig,
  BlipCaptionerConfig,
  BlipPairConfig,
  BlipQuestionConfig,
  BlipRetrievalConfig,
  Blip2CaptionerConfig,
  Blip2RetrievalConfig,
  BridgeTowerConfig,
  ClapConfig,
  ClassifierConfig,
  Clip4ClipConfig,
  CocaConfig,
  EnsembleConfig,
  FlamingoConfig,
  FlavaConfig,
  GptConfig,
  ImageCodesConfig,
  OpenClipCocaConfig,
  PairConfig,
  PredictorConfig,
  ProjectorConfig,
  PublishedFlavaConfig,
  PublishedViltConfig,
  RecommenderConfig,
  RecognizerConfig,
  Seq2SeqConfig,
  TextToImageConfig,
  VerifierConfig,
  ViltConfig,
  VqaConfig,
  WhisperConfig,
  WriterConfig,
  XClipConfig,
  # bridges of projector models
  LinearBridge,
  MlpBridge,
  QFormerBridge,
  # quantizers of image tokenizers
  Fsq,
  VectorQuantizer,
  GumbelQuantizer,
  # terms of the loss
  contrastive.Contrastive,
  ctc.Ctc,
  distillation.Distillation,
  distillation.FeatureDistillation,
  draw.DrawCodes,
  draw.DrawMaskedCodes,
  momentum.MomentumContrastive,
  sogclr.Sogclr,
  sampled_softmax.SampledSoftmax,
  matching.Matching,
  matching.SwappedMatching,
  pair_softmax.PairSoftmax,
  language.Caption,
  language.MaskedWords,
  language.NextSentence,
  language.TargetText,
  interleaved.InterleavedText,
  patches.MaskedBoth,
  patches.MaskedPatches,
  answers.Answer,
  answers.AnswerRanking,
  answers.AnswerScores,
  answers.AnswerText,
  answers.ModalityAnswer,
  answers.Relevance,
  classify.Classify,
  members.ClassifyMembers,
  margin_softmax.ArcFace,
  margin_softmax.CosFace,
  reconstruct.Reconstruct,
  adversarial.Discriminate,
  adversarial.Deceive,
  regress.Regress,
  # pairwise losses
  Softmax,
  Sigmoid,
  Align,
  Dcl,
  Focal,
  Hinge,
  SemiHard,
  Supcon,
  Triplet,
  Unicl,
  # evaluators
  *(type(evaluator) for evaluator in built_in().values()),
  Probe,
  ClassifiedExamples,
  PairScoreRetrieval,
  ReconstructedImages,
  DrawnScenes,
  FewShot,
)
