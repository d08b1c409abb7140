"""The table of supported architectures, by library: what `load` reads, what `save` writes, and since which version."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmjax.encoders import (
  AstConfig,
  ClassicResNetConfig,
  ConvNeXtConfig,
  EfficientNetConfig,
  ModernTextConfig,
  SwinConfig,
  TextConfig,
  ViTConfig,
)
from mmjax.interop import open_clip_timm as timm
from mmjax.interop import transformers_aimv2 as aimv2
from mmjax.interop import transformers_align as align
from mmjax.interop import transformers_ast as sound
from mmjax.interop import transformers_beit as beit
from mmjax.interop import transformers_blip as blip
from mmjax.interop import transformers_blip2 as blip2
from mmjax.interop import transformers_blip2_captioner as blip2_captioner
from mmjax.interop import transformers_bridgetower as bridgetower
from mmjax.interop import transformers_causal as causal
from mmjax.interop import transformers_clap as clap
from mmjax.interop import transformers_classifiers as classes
from mmjax.interop import transformers_convnext as convnext
from mmjax.interop import transformers_deit as deit
from mmjax.interop import transformers_dino as dino
from mmjax.interop import transformers_dino3 as dino3
from mmjax.interop import transformers_dual as dual
from mmjax.interop import transformers_flava as flava
from mmjax.interop import transformers_modernbert as modernbert
from mmjax.interop import transformers_one_tower as one
from mmjax.interop import transformers_opt as opt
from mmjax.interop import transformers_owlvit as owl
from mmjax.interop import transformers_pairs as others
from mmjax.interop import transformers_resnet as resnet
from mmjax.interop import transformers_single as single
from mmjax.interop import transformers_swin as swin
from mmjax.interop import transformers_t5 as t5
from mmjax.interop import transformers_texts as texts
from mmjax.interop import transformers_towers as pairs
from mmjax.interop import transformers_vilt as vilt
from mmjax.interop import transformers_whisper as whisper
from mmjax.interop import transformers_xclip as xclip
from mmjax.interop.architecture import Architecture, Entries
from mmjax.interop.big_vision import BIG_VISION
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.native import NATIVE
from mmjax.interop.open_clip import OPEN_CLIP, OPEN_CLIP_HF
from mmjax.interop.open_clip_coca import OPEN_CLIP_COCA
from mmjax.interop.openai import OPENAI
from mmjax.interop.tensors import Part, TensorFile
from mmjax.models import (
  AlignConfig,
  Blip2CaptionerConfig,
  Blip2RetrievalConfig,
  BlipCaptionerConfig,
  BlipPairConfig,
  BlipQuestionConfig,
  BlipRetrievalConfig,
  BridgeTowerConfig,
  ClapConfig,
  ClassifierConfig,
  GptConfig,
  PublishedFlavaConfig,
  PublishedViltConfig,
  Seq2SeqConfig,
  SharedSpaceConfig,
  TwoTowerConfig,
  WhisperConfig,
  XClipConfig,
)

Writes = Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Class:
  """A class of transformers.

  Attributes:
    kind: `model_type` in config.json.
    architecture: the architecture; its name is that of the class.
    having: regular expression of a tensor that the other classes of the same `kind` do not have. Empty: all files.
    writes: True for the configurations that are written as this class. The first such class counts. None: it is not
      written.
    form: format that writes the class.
    processor: class of the image processor that its images are prepared with. Empty: it takes no images.
    since: first version of mmjax that reads the class.
  """

  kind: str
  architecture: Architecture
  having: str = ""
  writes: Writes | None = None
  form: str = "transformers"
  processor: str = ""
  since: str = "0.1.0"


def _is(kind: type, **fields: Any) -> Writes:
  """Configurations of a type whose fields have these values."""
  return lambda c: isinstance(c, kind) and all(getattr(c, name) == value for name, value in fields.items())


def _text(*fields: str) -> Writes:
  """Text transformers in which one of these fields is set."""
  return lambda c: isinstance(c, TextConfig) and any(getattr(c, name) for name in fields)


def _language(*biases: str) -> Writes:
  """Language models with rotary positions and one of these settings of attention_bias."""
  return lambda c: _is(GptConfig)(c) and c.text.positions == "rotary" and c.text.attention_bias in biases


def _opt(config: Any) -> bool:
  """Language models with OPT's positions."""
  return isinstance(config, GptConfig) and config.text.padding_positions == opt.PADDING_POSITIONS


def _space(tower: str, **fields: Any) -> Writes:
  """A single tower with its projection: a SharedSpace with these fields."""
  return lambda c: _is(SharedSpaceConfig, init_logit_scale=None, **fields)(c) and list(c.towers) == [tower]


def _scaled(*, registers: bool) -> Writes:
  """DINOv2's image towers, which scale their branches, with registers or without."""
  fits = lambda c: c.layer_scale is not None and c.rotary == "none" and bool(c.registers) == registers
  return lambda c: isinstance(c, ViTConfig) and fits(c)


def _classifier(of: Writes) -> Writes:
  """Classifiers of images whose tower is one of `of`."""
  return lambda c: isinstance(c, ClassifierConfig) and of(c.towers.get("image"))


def _sounds(config: Any) -> bool:
  """Classifiers of sounds."""
  return isinstance(config, ClassifierConfig) and isinstance(config.towers.get("audio"), AstConfig)


def _two(config: Any) -> bool:
  """Two-tower models whose embeddings are the projected vectors of their towers."""
  return isinstance(config, TwoTowerConfig) and not isinstance(config, BlipPairConfig | PublishedFlavaConfig)


def _pair(*, map_pool: bool) -> Writes:
  """Two-tower models whose image tower pools as SigLIP does, or not."""
  return lambda c: _two(c) and _is(ViTConfig, pool="map")(c.image) == map_pool


def _beside(**fields: Any) -> Writes:
  """Two-tower models with CLIP's image tower beside a text transformer with these fields."""
  image, text = _is(ViTConfig, input_norm=True, pool="cls"), _is(TextConfig, **fields)
  return lambda c: isinstance(c, TwoTowerConfig) and image(c.image) and text(c.text)


def _beside_probe(config: Any) -> bool:
  """Two-tower models with AIMv2's image tower."""
  return isinstance(config, TwoTowerConfig) and _is(ViTConfig, pool="probe")(config.image)


def _dual(config: Any) -> bool:
  """Two-tower models with linear projections that are neither CLIP nor SigLIP."""
  both = _two(config) and isinstance(config.text, TextConfig)
  return both and (config.text.norm == "post" or not isinstance(config.image, ViTConfig))


_CHINESE, _OWL, _FLAVA = "ChineseCLIPImageProcessor", "OwlViTImageProcessor", "FlavaImageProcessor"
_CLIP, _SIGLIP, _VIT = "CLIPImageProcessor", "SiglipImageProcessor", "ViTImageProcessor"
NAFLEX, _BLIP = "Siglip2ImageProcessor", "BlipImageProcessor"
_BIT, _DEIT, _DINOV3 = "BitImageProcessor", "DeiTImageProcessor", "DINOv3ViTImageProcessor"
CONVNEXT = "ConvNextImageProcessor"
BRIDGETOWER, VILT = "BridgeTowerImageProcessor", "ViltImageProcessor"
EFFICIENTNET, VIDEOMAE = "EfficientNetImageProcessor", "VideoMAEImageProcessor"
_HEAD, _REGISTERS = classes.HEAD, "dinov2_with_registers"
_VISUAL, _TEXTUAL = r"^visual_projection\.", r"^text_projection\."

_BEIT_IMAGES, _BEIT = "BeitImageProcessor", _is(ViTConfig, attention_bias="query_value", rotary="none")
_CLASSIC = _is(ClassicResNetConfig)
_CONVNEXT_V2 = _is(ConvNeXtConfig, response_norm=True)
_T5_DECODER = r"^decoder\."

CLASSES: tuple[Class, ...] = (
  Class(
    "vilt", vilt.VILT_ANSWERS, r"^classifier\.3\.weight$", _is(PublishedViltConfig, head="answers"), processor=VILT
  ),
  Class("vilt", vilt.VILT_MATCH, r"^rank_output\.weight$", _is(PublishedViltConfig, head="match"), processor=VILT),
  Class("vilt", vilt.VILT_WORDS, r"^mlm_score\.", _is(PublishedViltConfig, head="words"), processor=VILT),
  Class("vilt", vilt.VILT, writes=_is(PublishedViltConfig), processor=VILT),
  Class("chinese_clip", others.CHINESE_CLIP, writes=_beside(norm="post", count_positions=False), processor=_CHINESE),
  Class("altclip", others.ALT_CLIP, writes=_beside(count_positions=True, tanh_pool=False), processor=_CLIP),
  Class(dual.KIND, dual.DUAL, writes=_dual, processor=_CLIP),
  Class("modernbert", modernbert.MODERNBERT, writes=_is(ModernTextConfig)),
  Class("aimv2", aimv2.AIMV2, writes=_beside_probe, processor=_CLIP),
  Class("aimv2_vision_model", aimv2.AIMV2_IMAGE, writes=_is(ViTConfig, pool="probe"), processor=_CLIP),
  Class("aimv2_text_model", aimv2.AIMV2_TEXT, writes=_is(TextConfig, rms_norm=True, causal=True)),
  Class("clip", pairs.CLIP, writes=_pair(map_pool=False), processor=_CLIP),
  Class("siglip", classes.SIGLIP_CLASSES, _HEAD, _classifier(_is(ViTConfig, pool="mean")), processor=_SIGLIP),
  Class("siglip2", classes.SIGLIP2_CLASSES, _HEAD, _is(ClassifierConfig), form="siglip2", processor=NAFLEX),
  Class("siglip", pairs.SIGLIP, writes=_pair(map_pool=True), processor=_SIGLIP),
  Class("siglip2", pairs.SIGLIP2, writes=_is(TwoTowerConfig), form="siglip2", processor=NAFLEX),
  Class("clip_vision_model", one.CLIP_IMAGE_PROJECTED, _VISUAL, _space("image"), processor=_CLIP),
  Class("clip_vision_model", one.CLIP_IMAGE, writes=_is(ViTConfig, pool="cls", input_norm=True), processor=_CLIP),
  Class("clip_text_model", one.CLIP_TEXT_PROJECTED, _TEXTUAL, _space("text", projection="linear")),
  Class("clip_text_model", one.CLIP_TEXT, writes=_is(TextConfig, causal=True)),
  Class("chinese_clip_vision_model", one.CHINESE_CLIP_IMAGE, processor=_CLIP),
  Class("altclip_vision_model", one.ALT_CLIP_IMAGE, processor=_CLIP),
  Class("clipseg_vision_model", one.CLIPSEG_IMAGE, processor=_CLIP),
  Class("clipseg_text_model", dataclasses.replace(one.CLIP_TEXT, name="CLIPSegTextModel")),
  Class("owlvit_vision_model", owl.OWLVIT_IMAGE, processor=_OWL),
  Class("owlvit_text_model", owl.OWLVIT_TEXT),
  Class("owlv2_vision_model", owl.OWLV2_IMAGE),
  Class("owlv2_text_model", owl.OWLV2_TEXT),
  Class("align", align.ALIGN, writes=_is(AlignConfig), processor=EFFICIENTNET),
  Class("align_vision_model", align.ALIGN_IMAGE, writes=_is(EfficientNetConfig, lite=False), processor=EFFICIENTNET),
  Class("align_text_model", dataclasses.replace(single.BERT, name="AlignTextModel")),
  Class("flava_image_model", flava.FLAVA_IMAGE, processor=_FLAVA),
  Class("flava_text_model", flava.FLAVA_TEXT, writes=_is(TextConfig, norm="pre", input_norm=True, causal=False)),
  Class("flava", flava.FLAVA, writes=_is(PublishedFlavaConfig), processor=_FLAVA),
  Class("siglip_vision_model", one.SIGLIP_IMAGE, writes=_is(ViTConfig, pool="map"), processor=_SIGLIP),
  Class("siglip_text_model", one.SIGLIP_TEXT, writes=_space("text", projection="affine")),
  Class("siglip2_vision_model", one.SIGLIP2_IMAGE, writes=_is(ViTConfig), form="siglip2", processor=NAFLEX),
  Class("siglip2_text_model", one.SIGLIP2_TEXT, writes=_space("text"), form="siglip2"),
  Class("blip", blip.BLIP_RETRIEVAL, r"^(vision_proj|text_proj|itm_head)\.", _is(BlipRetrievalConfig), processor=_BLIP),
  Class("blip", blip.BLIP_QUESTION, r"^text_encoder\.", _is(BlipQuestionConfig), processor=_BLIP),
  Class("blip", blip.BLIP_CAPTIONER, r"^text_decoder\.", _is(BlipCaptionerConfig), processor=_BLIP),
  Class("blip", blip.BLIP_PAIR, r"^text_model\.", _is(BlipPairConfig), processor=_BLIP),
  Class("blip-2", blip2.BLIP2, r"^itm_head\.", _is(Blip2RetrievalConfig), processor=_BLIP),
  Class("blip-2", blip2_captioner.BLIP2_CAPTIONER, r"^language_model\.", _is(Blip2CaptionerConfig), processor=_BLIP),
  Class("blip_2_vision_model", blip2.BLIP2_IMAGE, processor=_BLIP),
  Class(
    "instructblip_vision_model",
    dataclasses.replace(blip2.BLIP2_IMAGE, name="InstructBlipVisionModel"),
    processor=_BLIP,
  ),
  Class("blip_vision_model", blip.BLIP_IMAGE, processor=_BLIP),
  Class(
    "bridgetower",
    bridgetower.BRIDGETOWER_CONTRASTIVE,
    r"^itc_text_head\.",
    _is(BridgeTowerConfig, head="contrastive"),
    processor=BRIDGETOWER,
  ),
  Class(
    "bridgetower",
    bridgetower.BRIDGETOWER_MATCH,
    r"^itm_score\.",
    _is(BridgeTowerConfig, head="match"),
    processor=BRIDGETOWER,
  ),
  Class("bridgetower", bridgetower.BRIDGETOWER, writes=_is(BridgeTowerConfig), processor=BRIDGETOWER),
  Class("beit", classes.BEIT_CLASSES, _HEAD, _classifier(_BEIT), processor=_BEIT_IMAGES),
  Class("beit", beit.BEIT, writes=_BEIT, processor=_BEIT_IMAGES),
  Class("data2vec-vision", classes.DATA2VEC_CLASSES, _HEAD, processor=_BEIT_IMAGES),
  Class("data2vec-vision", beit.DATA2VEC, processor=_BEIT_IMAGES),
  Class("dinov2", classes.DINOV2_CLASSES, _HEAD, _classifier(_scaled(registers=False)), processor=_BIT),
  Class("dinov2", dino.DINOV2, writes=_scaled(registers=False), processor=_BIT),
  Class(_REGISTERS, classes.REGISTERS_CLASSES, _HEAD, _classifier(_scaled(registers=True)), processor=_BIT),
  Class(_REGISTERS, dino.DINOV2_REGISTERS, writes=_scaled(registers=True), processor=_BIT),
  Class("dinov3_vit", dino3.DINOV3, writes=_is(ViTConfig, rotary="centered"), processor=_DINOV3),
  Class("deit", classes.DEIT_CLASSES, _HEAD, _classifier(_is(ViTConfig, register_position=True)), processor=_DEIT),
  Class("deit", deit.DEIT, writes=_is(ViTConfig, register_position=True), processor=_DEIT),
  Class("swin", classes.SWIN_CLASSES, _HEAD, _classifier(_is(SwinConfig)), processor=_VIT),
  Class("swin", swin.SWIN, writes=_is(SwinConfig), processor=_VIT),
  Class("convnextv2", classes.CONVNEXT_V2_CLASSES, _HEAD, _classifier(_CONVNEXT_V2), processor=CONVNEXT),
  Class("convnextv2", convnext.CONVNEXT_V2, writes=_CONVNEXT_V2, processor=CONVNEXT),
  Class("convnext", classes.CONVNEXT_CLASSES, _HEAD, _classifier(_is(ConvNeXtConfig)), processor=CONVNEXT),
  Class("convnext", convnext.CONVNEXT, writes=_is(ConvNeXtConfig), processor=CONVNEXT),
  Class("resnet", classes.RESNET_CLASSES, classes.HEAD_1, _classifier(_CLASSIC), processor=CONVNEXT),
  Class("resnet", resnet.RESNET, writes=_CLASSIC, processor=CONVNEXT),
  Class(sound.KIND, sound.AST_CLASSES, sound.HEAD, _sounds),
  Class(sound.KIND, sound.AST, writes=_is(AstConfig)),
  Class("clap", clap.CLAP, writes=_is(ClapConfig)),
  Class("vit", classes.VIT_CLASSES, _HEAD, _is(ClassifierConfig), processor=_VIT),
  Class("vit", single.VIT, writes=_is(ViTConfig), processor=_VIT),
  Class("vit_msn", classes.MSN_CLASSES, _HEAD, processor=_VIT),
  Class("vit_msn", single.VIT_MSN, processor=_VIT),
  Class("vit_mae", single.VIT_MAE, processor=_VIT),
  Class("t5", t5.T5_WRITER, _T5_DECODER, _is(Seq2SeqConfig)),
  Class("t5", t5.T5, writes=_is(TextConfig, rms_norm=True)),
  Class("mt5", dataclasses.replace(t5.T5_WRITER, name="MT5ForConditionalGeneration"), _T5_DECODER),
  Class("mt5", dataclasses.replace(t5.T5, name="MT5EncoderModel")),
  Class("mpnet", texts.MPNET, writes=_text("relative_buckets")),
  Class("roberta", texts.ROBERTA, writes=_is(TextConfig, count_positions=True)),
  Class("xlm-roberta", dataclasses.replace(texts.ROBERTA, name="XLMRobertaModel")),
  Class("bert", single.BERT, writes=_text("token_types", "tanh_pool")),
  Class("distilbert", texts.DISTILBERT, writes=_is(TextConfig)),
  Class("qwen2", causal.QWEN2, writes=_language("only")),
  Class("llama", causal.LLAMA, writes=_language("all", "none", "query_value")),
  Class("opt", opt.OPT, writes=_opt),
  Class("gpt2", causal.GPT2, writes=_is(GptConfig)),
  Class("whisper", whisper.WHISPER, writes=_is(WhisperConfig)),
  Class("xclip", xclip.XCLIP, writes=_is(XClipConfig), processor=_CLIP),
)
"""Classes of transformers. Of those with one `kind`, the first whose tensor is there is read."""

PROCESSORS = {row.architecture.name: row.processor for row in CLASSES if row.processor}
"""Class of the image processor, by the name of the architecture."""

_REFUSED = {
  "blip_text_model": "BlipTextModel, which mmjax has no model for yet",
  "groupvit": "GroupViTModel, whose image tower groups its patches. None of its parts is read",
  "swinv2": "Swinv2Model, whose attention compares directions and computes its bias. It is one tower without parts",
}
"""Other kinds of transformers, and what they are: a sentence each, which says what of them can be had."""


@dataclasses.dataclass(frozen=True)
class Whole:
  """A class of transformers whose towers are read in another form than mmjax's model of the class has, if it has one.

  Attributes:
    kind, having: as in `Class`.
    name: the class.
    towers: by the name of a tower, the field with its configuration, which is of a kind in CLASSES (empty: the whole
      file), and a regular expression of the beginning of its tensors, which is removed from their names.
    read: True if mmjax also reads the whole class.
  """

  kind: str
  name: str
  towers: Mapping[str, tuple[str, str]]
  having: str = ""
  read: bool = False


def _image_of(prefix: str) -> dict[str, tuple[str, str]]:
  return {"image": ("vision_config", prefix)}


def _both_of(prefix: str) -> dict[str, tuple[str, str]]:
  """The towers of a CLIP under a prefix."""
  images, texts = rf"^({prefix}\.)?(?=vision_model\.)", rf"^({prefix}\.)?(?=text_model\.)"
  return _image_of(images) | {"text": ("text_config", texts)}


_VISION = r"^(?=vision_model\.)"
_T5_ENCODER = {"text": ("", r"^(?=(shared|encoder)\.)")}
WHOLES: tuple[Whole, ...] = (
  Whole("clip", "CLIPForImageClassification", _image_of(_VISION), _HEAD),
  Whole("clipseg", "CLIPSegForImageSegmentation", _both_of("clip")),
  Whole("instructblip", "InstructBlipForConditionalGeneration", _image_of(_VISION)),
  Whole("owlvit", "OwlViTForObjectDetection", _both_of("owlvit")),
  Whole("owlv2", "Owlv2ForObjectDetection", _both_of("owlv2")),
  Whole("llava", "LlavaForConditionalGeneration", _image_of(r"^(model\.)?vision_tower\.")),
  Whole("t5", t5.T5_WRITER.name, _T5_ENCODER, _T5_DECODER, read=True),
  Whole("mt5", "MT5ForConditionalGeneration", _T5_ENCODER, _T5_DECODER, read=True),
)
"""Classes of which towers are read apart."""


class Supported(NamedTuple):
  """A line of the list: library, architecture in it, first version of mmjax that reads it, formats that write it."""

  library: str
  name: str
  since: str
  written: str


def read_class(fields: Fields, entries: Entries) -> Architecture:
  """Find the architecture of a checkpoint of transformers.

  Args:
    fields: config.json.
    entries: the tensors.
  Raises: InteropError: mmjax does not read the class. The message says what it is, and what can be had of it.
  """
  kind = fields.text("model_type")
  if kind in _REFUSED:
    raise InteropError(f"{fields.where}: model_type {kind!r} is {_REFUSED[kind]}")
  if kind == dual.KIND:
    return dual.dual(fields)
  for row in CLASSES:
    if row.kind == kind and _has(entries, row.having):
      return row.architecture
  known = sorted({row.kind for row in CLASSES})
  if kind in known:
    raise InteropError(
      f"{fields.where}: model_type is {kind!r}, but the tensors are not those of a class that mmjax reads"
    )
  raise _unknown(fields, known)


def _unknown(fields: Fields, known: Sequence[str]) -> InteropError:
  """Error for a class that no table names. It says which of its towers could be read, saved on their own."""
  error = fields.wrong("model_type", f"one of {', '.join(map(repr, known))}")
  for name in _TOWERS:
    inner = fields.values.get(name)
    kind = inner.get("model_type") if isinstance(inner, dict) else None
    if kind in known:
      names = fields.values.get("architectures") or [repr(fields.get("model_type"))]
      return InteropError(
        f"{error}. mmjax has no model for {names[0]}, but its {name} is {kind!r}: with transformers, save_pretrained "
        "of this part alone writes a folder that mmjax reads"
      )
  return error


_TOWERS = ("vision_config", "text_config", "encoder_config", "language_config", "decoder_config")
"""Fields with the configuration of a part."""


def part_of_whole(fields: Fields, file: TensorFile, tower: str) -> tuple[Fields, TensorFile]:
  """Take a tower that is read in another form than the class has. Other checkpoints are returned as they are.

  Args:
    fields: config.json.
    file: the tensors.
    tower: tower that is asked for; empty: the whole model.
  Returns: (configuration, tensors).
  Raises: InteropError: mmjax has no model for the class, and not a tower that it reads is asked for.
  """
  kind = fields.get("model_type")
  found = (row for row in WHOLES if row.kind == kind and _has(file.entries, row.having))
  whole = next(found, None)
  if whole is None or (whole.read and tower not in whole.towers):
    return fields, file
  if tower not in whole.towers:
    first, names = next(iter(whole.towers)), " and ".join(whole.towers)
    raise InteropError(
      f"{fields.where}: model_type {kind!r} is {whole.name}, which mmjax has no model for. It reads its {names} tower: "
      f'set tower="{first}" in interop.load, --tower {first} in convert, --pretrained.into {first} in a run'
    )
  field, prefix = whole.towers[tower]
  if not field:
    return fields, Part(file, prefix)
  part = {"transformers_version": fields.get("transformers_version"), **fields.object(field).values}
  return Fields(part, f"{fields.where}: {field}"), Part(file, prefix)


def _has(entries: Entries, expression: str) -> bool:
  return not expression or any(re.search(expression, name) for name in entries)


def written_class(config: Any, form: str) -> Architecture | None:
  """Find the class of transformers that a format writes a configuration as. None if there is none."""
  found = (row for row in CLASSES if row.form == form and row.writes is not None and row.writes(config))
  return next((row.architecture for row in found), None)


def supported() -> Iterator[Supported]:
  """List everything that mmjax reads."""
  for row in CLASSES:
    yield Supported("transformers", row.architecture.name, row.since, row.form if row.writes else "-")
  for whole in WHOLES:
    for tower in whole.towers:
      yield Supported("transformers", f"{whole.name}, its {tower} tower", "0.1.0", "-")
  for architecture, form in (
    (OPEN_CLIP, "open_clip"),
    (OPEN_CLIP_HF, "open_clip"),
    (OPEN_CLIP_COCA, "open_clip"),
    (OPENAI, "openai"),
  ):
    yield Supported(form, architecture.name, "0.1.0", form)
  for name in (tower for family in timm.FAMILIES for tower in family.TOWERS):
    yield Supported("open_clip", f"timm's {name} as image tower", "0.1.0", "open_clip")
  yield Supported("big_vision", "SigLIP and other two towers, ViT", "0.1.0", BIG_VISION.name)
  yield Supported("mmjax", "every model", "0.1.0", NATIVE.name)


def refused() -> Iterator[tuple[str, str]]:
  """List the classes that are refused by name: (model_type, what it is and why)."""
  yield from _REFUSED.items()
