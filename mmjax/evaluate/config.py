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

  def __post_init__(self):
    for name in ("batch_size", "max_examples", "min_class_size"):
      if getattr(self, name) < 1:
        raise ValueError(f"evaluation.{name} is {getattr(self, name)}: it must be at least 1")
    if self.every < 0:
      raise ValueError(f"evaluation.every is {self.every}: it must not be negative")
    wrong = [template for template in self.templates if template.count("{}") != 1]
    if wrong or not self.templates:
      raise ValueError(f"evaluation.templates must be texts with one {{}} each for the class; got {wrong}")
