"""Load and save checkpoints of other libraries: configuration, weights, preprocessing and tokenizer."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import flax.linen as nn
import jax
import numpy as np

from mmjax.data import Sound
from mmjax.encoders import AstConfig, HtsatConfig, TextConfig
from mmjax.errors import ConfigError
from mmjax.interop import hub
from mmjax.interop.architecture import Architecture, check_writable, square_alike
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.formats import Content, Format, find_format
from mmjax.interop.generation_file import generation_fields, read_generation
from mmjax.interop.mapping import Table
from mmjax.interop.pretrained_tokenizer import PretrainedTokenizer, load_tokenizer
from mmjax.interop.processor import find_settings, read_preprocess
from mmjax.interop.restoring import make_array, plan_restore, read_all
from mmjax.interop.run_image import PREPROCESS, ImageTransform, transform_from_json
from mmjax.interop.safetensors_file import write_safetensors
from mmjax.interop.shapes import (
  ModelConfig,
  audio_tower,
  flat_shapes,
  image_tower,
  per_layer,
  text_tower,
  unflatten,
  with_dtype,
)
from mmjax.interop.siglip_tokenizer import SiglipTokenizer
from mmjax.interop.sound_settings import read_sound
from mmjax.interop.source import Source, open_source, tokenizer_fields
from mmjax.interop.speech_settings import check_features, read_speech_generation
from mmjax.interop.tensors import Entry
from mmjax.models.blip2_captioner import Blip2CaptionerConfig
from mmjax.models.comparing import ComparingConfig
from mmjax.models.config import with_towers
from mmjax.models.gpt import GptConfig
from mmjax.models.next_word import GenerateConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.models.shared_space import SpaceConfig
from mmjax.models.whisper import WhisperConfig

if TYPE_CHECKING:
  from mmjax.data.sound.reading import SoundLike
  from mmjax.interop.transcribing import Transcriber

Positions = Literal["open_clip", "transformers"]
Dtype = Literal["float32", "bfloat16"]
Tower = Literal["", "image", "audio", "text"]


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A loaded checkpoint: model, parameters, preprocessing and tokenizer.

  Attributes:
    model: linen module with the methods described in `load`.
    params: its parameters.
    source: the files that were read.
  """

  model: nn.Module
  params: Any
  source: Source

  @functools.cached_property
  def preprocess(self) -> ImageTransform:
    """Image preprocessing for encode_image, from the files beside the weights or the architecture's default.

    Raises: InteropError: the model takes no images, or the files ask for an unsupported step.
    """
    return read_transform(self.source, _image_size(self.model.config))

  @functools.cached_property
  def sound(self) -> Sound:
    """Column that makes the features of sounds for AST or CLAP, from the files or the defaults of the class.

    Raises: InteropError: the model is neither, or the files ask for something that mmjax does not support.
    """
    config = self.model.config
    tower = audio_tower(config)
    if not isinstance(tower, AstConfig | HtsatConfig):
      raise InteropError(f"{type(config).__name__} has no audio spectrogram transformer or HTS-AT")
    return read_sound(self.source.folder, tower)

  @functools.cached_property
  def tokenizer(self) -> PretrainedTokenizer | SiglipTokenizer:
    """Tokenizer that makes the ids for encode_text. Raises InteropError if the folder has none that mmjax can read."""
    length, own = _text_length(self.model.config), _text_length(self.source.config)
    fields, pad = tokenizer_fields(self.source), padding_of(self.source.config)
    found = load_tokenizer(self.source.folder, length, open_clip=fields, whole=length != own, pad_id=pad)
    rows = getattr(text_tower(self.source.config), "vocab_size", None)
    return dataclasses.replace(found, rows=rows) if isinstance(found, PretrainedTokenizer) else found

  def generation(self, prompt_length: int) -> GenerateConfig:
    """Settings for mmjax.models.generate, as generation_config.json and transformers' defaults have them.

    Args:
      prompt_length: tokens of the prompts with their padding. `max_length` in the file counts them too. The prompt of
        an encoder-decoder is the one token `config.begin_id`.
    Raises: InteropError: the model is neither a causal language model nor an encoder-decoder of texts, a setting is not
      supported, or the prompt is too long.
    """
    config = self.model.config
    if not isinstance(config, GptConfig | Seq2SeqConfig):
      raise InteropError(
        f"{self.source.path} is {self.source.architecture.name}, neither a causal language model nor an "
        "encoder-decoder of texts: make a GenerateConfig"
      )
    return read_generation(generation_fields(self.source.folder), prompt_length, config.text.max_length)

  @functools.cached_property
  def transcriber(self) -> "Transcriber":
    """Transcriber of a Whisper. Raises InteropError as `transcribe` does."""
    from mmjax.interop.transcribing import Transcriber

    config = self.source.config
    if not isinstance(config, WhisperConfig):
      raise InteropError(f"{self.source.path} is {self.source.architecture.name}, which does not write down speech")
    fields = find_settings(self.source.folder, "feature_extractor")
    if fields is not None:
      check_features(fields, config)
    tokenizer = self.tokenizer
    assert isinstance(tokenizer, PretrainedTokenizer)
    return Transcriber(self.model, self.params, read_speech_generation(self.source), tokenizer.engine)

  def transcribe(
    self,
    sounds: "Sequence[SoundLike]",
    *,
    language: str | None = None,
    task: str | None = None,
    config: GenerateConfig | None = None,
    batch_size: int = 8,
  ) -> list[str]:
    """Write down what is said in sounds. The model must be a Whisper.

    A sound is cut into windows of 30 s (the model's frames), one after the other, and the last one is filled up with
    silence. The text of each window is written by itself, and the texts are joined: a word at the border of two windows
    may be lost or written twice. transformers goes on from the last time that the model writes, which mmjax does not.

    Args:
      sounds: what `mmjax.data.sound.read_sound` reads: paths, encoded bytes, or (samples, rate).
      language: code of the language, such as "en". None: that of generation_config.json, or else that of each window.
      task: "transcribe" or "translate" (to English). None: that of generation_config.json.
      config: number of beams, sampling and length. The suppressed tokens of generation_config.json are added. None:
        greedy, up to its max_length.
      batch_size: windows that are transcribed together.
    Returns: one text for each sound.
    Raises:
      InteropError: the model is no Whisper, has no such language or task, or a setting of its files is not supported.
      DataError: a sound cannot be read, is longer than 600 s, or the extra `sound` is not installed.
    """
    return self.transcriber(sounds, language=language, task=task, config=config, batch_size=batch_size)


def load(
  path: str | Path,
  *,
  image_size: int | None = None,
  max_length: int | None = None,
  positions: Positions = "open_clip",
  dtype: Dtype = "float32",
  tower: Tower = "",
  download: bool = False,
) -> tuple[nn.Module, Any]:
  """Load weights of another library as a model of mmjax.

  Images [b, h, w, 3] must be normalised already. Texts are token ids [b, t]. The outputs [b, d] are float32 and equal
  those of the other library (get_image_features and get_text_features; in open_clip, encode_image and encode_text):

      image_embeddings = model.apply({"params": params}, images, method="encode_image")
      text_embeddings = model.apply({"params": params}, ids, method="encode_text")

  * Two-tower models give projected embeddings that are NOT unit-norm.
  * CoCa and BlipForImageTextRetrieval give unit-norm embeddings, as the other library does.
  * Blip2ForImageTextRetrieval gives unit-norm embeddings, for an image one for each query [b, q, d]; `similarities`
    compares them. ClapModel has encode_audio for features of sounds [b, t, f], and XCLIPModel encode_video for frames
    [b, t, h, w, 3]. ViLT has `encode`, `fuse` and its head.
  * A single tower gives the pooler_output, or the first token if it has no pooler. T5 gives the mean over its tokens.
    With a projection (CLIPVisionModelWithProjection, SiglipTextModel), it gives the projected embeddings.
  * A sentence encoder gives the mean over its tokens or the first token, as its files say.

  Captioning models also have `decode`, and BlipForImageTextRetrieval has `fuse`. BlipForConditionalGeneration, T5 and
  Whisper have `encode` and `decode` only; `Pretrained.transcribe` writes down what Whisper hears. A causal language
  model has `decode`, and mmjax.models.generate continues texts. Of Blip2ForConditionalGeneration, mmjax.models.generate
  continues the ids of a prompt after the encoded image; if its language model is T5, `fuse` adds the prompt to the
  image, and the text that is written begins with `config.begin_id`. The encoder of a T5 alone is tower="text".

  Args:
    path: one of
      a folder with config.json and model.safetensors (transformers: `python -m mmjax.interop list` lists the classes;
      or mmjax's own format),
      ORG/NAME, a model in the local cache of the Hugging Face hub (HF_HOME, HF_HUB_CACHE),
      a folder with open_clip_config.json and open_clip_model.safetensors (CLIP, CoCa; text towers of transformers too),
      a .safetensors file with the tensor names of OpenAI's CLIP,
      a .npz file of big_vision (SigLIP, ViT).
    image_size: new image size; position embeddings are resampled. None: the checkpoint's.
    max_length: new number of text tokens; position embeddings are cut off or interpolated. None: the checkpoint's.
    positions: library whose filter resamples image positions. open_clip's antialiases. transformers'
      (interpolate_pos_encoding) does not, and its kernel overshoots more.
    dtype: dtype of the matrices and of the computation. "bfloat16" takes half of the memory. Biases, gains, the logit
      scale and the embeddings stay in float32.
    tower: "image", "audio" or "text": only this tower of a whole model, which then is a single tower. Empty: the whole
      model.
    download: download a model of the Hugging Face hub that the local cache does not have.
  Returns: (model, params).
  Raises:
    InteropError: the checkpoint cannot be read, is of an unknown kind, or its parts do not fit together. The message
      names the tensor or the field.
  """
  found = load_pretrained(
    path,
    image_size=image_size,
    max_length=max_length,
    positions=positions,
    dtype=dtype,
    tower=tower,
    download=download,
  )
  return found.model, found.params


def load_pretrained(
  path: str | Path,
  *,
  image_size: int | None = None,
  max_length: int | None = None,
  positions: Positions = "open_clip",
  dtype: Dtype = "float32",
  tower: Tower = "",
  download: bool = False,
) -> Pretrained:
  """Load a checkpoint with its preprocessing and its tokenizer.

  Tensors are read one after the other, so that little more than the parameters is in memory.

  Args:
    path, image_size, max_length, positions, dtype, tower, download: as for `load`.
  Raises: InteropError: as for `load`.
  """
  if dtype not in get_args(Dtype):
    raise InteropError(f"dtype is {dtype!r}, but must be one of {', '.join(map(repr, get_args(Dtype)))}")
  if download:
    hub.download(path)
  source = open_source(path, tower=tower)
  if positions == "transformers":
    source = dataclasses.replace(source, resampling=source.architecture.resampling)
  flat: Mapping[str, Any] = read_all(source, dtype)
  config = _resized(source.config, image_size, max_length)
  if config != source.config:
    shapes = flat_shapes(config)
    plan = plan_restore(source, shapes)
    flat = {
      name: flat[name] if flat[name].shape == shape else make_array(plan.readers[name], shape, dtype=dtype)
      for name, shape in shapes.items()
    }
  return Pretrained(with_dtype(config, dtype).build(), unflatten(flat), source)


def save(
  model: nn.Module,
  params: Any,
  path: str | Path,
  format: str = "transformers",
  *,
  preprocess: ImageTransform | Sound | None = None,
) -> Path:
  """Write weights and configuration in an external format. `load` reads the same values back, bit for bit.

  A clipped logit scale or bias is written as it acts: the clipped value.

  Args:
    model: the model.
    params: its parameters, stacked over layers or not.
    path: folder to write into; for the formats "openai" and "big_vision", also a file (.safetensors, .npz).
    format: one of
      "transformers": the class that holds the model (`python -m mmjax.interop list` lists them);
      "siglip2": Siglip2Model of transformers, or one of its towers;
      "open_clip": CLIP or CoCa, for open_clip.create_model_and_transforms("local-dir:PATH");
      "openai";
      "big_vision";
      "mmjax": every model.
    preprocess: preprocessing to write beside the weights, in the files of the format: of images, or the column of
      sounds of an audio spectrogram transformer (transformers only). None: not written.
  Returns: the file with the weights.
  Raises: InteropError: the format cannot hold the model (the message names every field that does not fit), `params` are
    not those of the model, or the files cannot be written.
  """
  config: ModelConfig = model.config
  form = find_format(format)
  if isinstance(preprocess, Sound) and format != "transformers":
    raise InteropError(f'the format "{format}" has no settings of sounds: leave preprocess out, or use "transformers"')
  architecture = form.architecture(config)
  fields, table = _their_side(architecture, config)
  flat = _effective(config, per_layer(params))
  missing = set(table.places) ^ set(flat)
  if missing:
    raise InteropError(f"params are not those of this model: {sorted(missing)[0]!r} is only in one of the two")
  tensors = table.to_theirs(flat, lambda leaf: np.asarray(jax.device_get(leaf), np.float32))
  tensors |= {name: np.zeros(shape, np.float32) for name, shape in architecture.blank(config).items()}
  both = (None, preprocess) if isinstance(preprocess, Sound) else (preprocess, None)
  return _write(Path(path).expanduser(), form, Content(architecture, config, fields, tensors, *both))


def _their_side(architecture: Architecture, config: ModelConfig) -> tuple[dict[str, Any], Table]:
  """Make the external configuration and the mapping table. Raises InteropError if a field of `config` is lost."""
  fields = architecture.write(config)
  try:
    back = _read_back(architecture, config)
  except (KeyError, IndexError, ValueError) as error:
    _check_nearest(architecture, config)
    raise InteropError(
      f'{architecture.name} cannot hold this model ({error}). Use format="mmjax", which holds every model'
    ) from error
  if isinstance(back, TextConfig) and isinstance(config, TextConfig) and config.pool == "mean":
    back = dataclasses.replace(back, pool="mean")  # written to sentence-transformers' files instead
  check_writable(config, back, architecture.name)
  try:
    return fields, Table(architecture.rules(config), flat_shapes(config))
  except ConfigError as error:
    raise InteropError(
      f'{architecture.name} cannot hold this model: {error}. Use format="mmjax", which holds every model'
    ) from error


def _read_back(architecture: Architecture, config: ModelConfig) -> ModelConfig:
  """Read the configuration from the external one that is written for it, and from the tensors that it would have."""
  table = Table(architecture.rules(config), flat_shapes(config), partial=True)
  entries = {name: Entry(shape, np.dtype(np.float32)) for name, shape in table.their_shapes.items()}
  return square_alike(architecture.read(Fields(architecture.write(config), architecture.name), entries), config)


def _check_nearest(architecture: Architecture, config: ModelConfig) -> None:
  """Raise InteropError that names the fields which an architecture lacks, if the nearest model that it has is known."""
  if architecture.nearest is None:
    return
  try:
    back = _read_back(architecture, architecture.nearest(config))
  except (KeyError, IndexError, ValueError):
    return
  check_writable(config, back, architecture.name)


def _effective(config: ModelConfig, flat: dict[str, Any]) -> dict[str, Any]:
  """Clip the logit scale and the bias. mmjax clips them where they are used; other libraries do not."""
  if not isinstance(config, SpaceConfig | ComparingConfig):
    return flat
  acting = {}
  if config.init_logit_scale is not None:
    limit = np.float32(math.log(config.max_logit_scale))
    acting["logit_scale"] = np.minimum(np.asarray(flat["logit_scale"]), limit)
  if isinstance(config, SpaceConfig) and config.init_logit_bias is not None:
    bias = np.float32(config.max_logit_bias)
    acting["logit_bias"] = np.clip(np.asarray(flat["logit_bias"]), -bias, bias)
  return flat | acting


def _write(path: Path, form: Format, content: Content) -> Path:
  """Write the files of a checkpoint. Returns the file with the weights."""
  is_file = path.suffix in (".npz", ".safetensors")
  if is_file and not form.alone:
    raise InteropError(f"{path}: {content.architecture.name} is written as several files; give a folder")
  folder, weights = (path.parent, path) if is_file else (path, path / form.weights)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    form.write(folder, content)  # first, because it may refuse the preprocessing
    if form.weights.endswith(".npz"):
      np.savez(weights, **content.tensors)  # type: ignore[arg-type]
    else:
      write_safetensors(weights, content.tensors, {"format": "pt"})
  except OSError as error:
    raise InteropError(f"{folder} cannot be written: {error}; choose another folder") from error
  return weights


def padding_of(config: Any) -> int | None:
  """Token id that a model which writes is padded with, whatever the tokenizer's files say. None: the files decide."""
  return config.text.pad_id if isinstance(config, GptConfig | WhisperConfig | Blip2CaptionerConfig) else None


def _text_length(config: Any) -> int:
  length = getattr(text_tower(config), "max_length", None)
  if length is None:
    raise InteropError(f"{type(config).__name__} takes no texts")
  return length


def _image_size(config: Any) -> int:
  image = image_tower(config)
  if image is None:
    raise InteropError(f"{type(config).__name__} takes no images")
  return image.image_size


def read_transform(source: Source, size: int) -> ImageTransform:
  """Read the image preprocessing of a checkpoint, or the architecture's default.

  Args:
    source: the checkpoint.
    size: side of the images that the model takes.
  Raises: InteropError: the files ask for an unsupported step.
  """
  if source.format == "mmjax" and PREPROCESS in source.fields:
    return transform_from_json(source.fields.object(PREPROCESS), size)
  return read_preprocess(source, size, _image_size(source.config))


def _resized(config: Any, image_size: int | None, max_length: int | None) -> Any:
  sizes = (
    ("image", image_tower(config), "image_size", image_size),
    ("text", text_tower(config), "max_length", max_length),
  )
  try:
    for name, tower, field, size in sizes:
      if size and hasattr(tower, field):
        resized = dataclasses.replace(tower, **{field: size})
        config = resized if tower is config else with_towers(config, {name: resized})
  except ValueError as error:
    raise InteropError(str(error)) from error
  return config
