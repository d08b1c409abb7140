"""BERT as a configuration of the text transformer (Devlin et al. 2019)."""

from mmjax.encoders.text import TextConfig


def bert_config(*, width: int = 768, depth: int = 12, num_heads: int = 12, **fields: object) -> TextConfig:
  """Configuration of BERT; the default size is BERT-base.

  BERT is post-norm, has a norm on the embeddings, two segment types and epsilon 1e-12. It pools with a linear layer and
  tanh on [CLS].

  Args:
    width: width of the token vectors.
    depth: number of blocks.
    num_heads: number of attention heads.
    **fields: other fields of TextConfig, such as `pool="mean", tanh_pool=False` for sentence encoders.
  Returns: a text transformer's configuration.
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
