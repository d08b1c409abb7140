"""BERT as a configuration of the one text transformer (Devlin et al. 2019)."""

from mmjax.encoders.text import TextConfig


def bert_config(*, width: int = 768, depth: int = 12, num_heads: int = 12, **fields: object) -> TextConfig:
  """BERT: post-norm, a norm on the embeddings, segments, epsilon 1e-12, [CLS] through a linear layer and tanh.

  Args:
    width, depth, num_heads: the size (BERT-base as it stands).
    **fields: any other field of TextConfig, such as `pool="mean", tanh_pool=False` for sentence encoders.
  """
  defaults: dict[str, object] = dict(
    vocab_size=30_522,
    max_length=512,
    causal=False,
    pool="first",
    tanh_pool=True,
    token_types=2,
    norm="post",
    input_norm=True,
    norm_epsilon=1e-12,
  )
  return TextConfig(width=width, depth=depth, num_heads=num_heads, **(defaults | fields))  # type: ignore[arg-type]
