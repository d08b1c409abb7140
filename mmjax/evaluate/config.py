"""Every --evaluation.* setting."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """What is measured, and how often."""

  every: int = 0
  """Steps between evaluations while training; 0 evaluates at the end only."""
  batch_size: int = 256
  """Pictures or texts encoded at a time, over all devices."""
  best_metric: str = "mean_recall@1"
  """The number whose best checkpoint is kept: TASK/METRIC, as in the evaluation lines of metrics.jsonl."""
  max_examples: int = 5000
  """folder, tfds: at most this many pictures of the validation split, evenly spread over it."""
  templates: tuple[str, ...] = ("{}", "an emoji of {}", "a picture of {}", "a drawing of {}", "{} emoji")
  """Prompts for zero-shot classification; {} is where the class goes. Their embeddings are averaged."""
  min_class_size: int = 10
  """emoji: subgroups with fewer members than this are no zero-shot class."""
  rerank: int = 16
  """Models with a match head: how many of the most similar pictures or texts it orders anew; 0: none."""
  beams: int = 3
  """Models that write captions: texts that the beam search follows at once; 1: the likeliest word each time."""
  java_metrics: bool = False
  """Captions: METEOR and SPICE too, by pycocoevalcap's Java programs (pip install 'mmjax[captions]')."""
  attention_layer: int | None = None
  """Report: the layer, counted from 0 among those in which words read patches, whose attention is drawn; negative from
  the end; None: all together."""
  masked_words: tuple[str, ...] = ()
  """Models that guess hidden words: hide these wherever they occur (each one token); empty: 15% of all words."""

  def __post_init__(self):
    for name in ("batch_size", "max_examples", "min_class_size", "beams"):
      if getattr(self, name) < 1:
        raise ValueError(f"evaluation.{name} is {getattr(self, name)}: it must be at least 1")
    for name in ("every", "rerank"):
      if getattr(self, name) < 0:
        raise ValueError(f"evaluation.{name} is {getattr(self, name)}: it must not be negative")
    wrong = [template for template in self.templates if template.count("{}") != 1]
    if wrong or not self.templates:
      raise ValueError(f"evaluation.templates must be texts with one {{}} each for the class; got {wrong}")

  def after(self, step: int) -> bool:
    """Whether a run evaluates after a step."""
    return self.every > 0 and step > 0 and step % self.every == 0
