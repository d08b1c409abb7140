"""FLOPs of a forward pass, by formula: two per multiply-add of every matrix product.

block(t, w, h) = 2 t (4 w^2 + 2 w h) + 4 t^2 w        query, key, value, out; the MLP; query key^T and weights value

A gated MLP has 3 w h in place of 2 w h. Keys and values of fewer heads are narrower than w.
"""

from mmjax.nn.transformer import TransformerConfig


def transformer_flops(c: TransformerConfig, length: int) -> int:
  """FLOPs of all blocks for one example of `length` tokens."""
  per_token = 2 * c.width * (c.attention_width + c.key_width) + (2 + c.mlp_gated) * c.width * c.hidden
  return c.depth * (2 * length * per_token + 4 * length**2 * c.attention_width)


def attention_pool_flops(c: TransformerConfig, length: int) -> int:
  """Keys and values of every token; one query, one output, one pass through the MLP."""
  return 4 * length * c.width**2 + 4 * length * c.width + 4 * c.width**2 + 4 * c.width * c.hidden


def query_pool_flops(width: int, length: int, *, pool_width: int, queries: int) -> int:
  """FLOPs of keys and values of every token, and of queries and outputs of every learned query.

  Args:
    width: dimension of the tokens.
    length: number of tokens.
    pool_width: dimension of the result.
    queries: number of learned queries.
  """
  keys_and_values = 4 * length * width * pool_width
  return keys_and_values + 4 * queries * pool_width**2 + 4 * queries * length * pool_width
