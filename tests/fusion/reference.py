"""Every fusion in numpy, float64, as its paper writes it: loops where the module has products of tensors."""

import math

import numpy as np

HEADS = 2


def linear(p, x):
  return x @ p["kernel"] + p["bias"]


def norm(p, x):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def gelu(x):
  return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attend(p, x, context, mask):
  """Every row of x [q, d] reads the rows of context [k, d] that the mask lets it."""
  query, key, value = linear(p["query"], x), linear(p["key"], context), linear(p["value"], context)
  size, out = query.shape[1] // HEADS, np.zeros_like(query)
  for row, head in np.ndindex(len(x), HEADS):
    part = slice(head * size, (head + 1) * size)
    read = [k for k in range(len(context)) if mask[k]]
    weights = np.array([np.exp(query[row, part] @ key[k, part] / math.sqrt(size)) for k in read])
    for weight, k in zip(weights / weights.sum() if read else [], read, strict=True):
      out[row, part] += weight * value[k, part]
  return linear(p["out"], out)


def mlp(p, x):
  return linear(p["down"], gelu(linear(p["up"], x)))


def block(p, x, mask):
  h = norm(p["norm1"], x)
  x = x + attend(p["attention"], h, h, mask)
  return x + mlp(p["mlp"], norm(p["norm2"], x))


def transformer(p, x, mask, depth):
  for layer in range(depth):
    x = block(p[f"block_{layer}"], x, mask)
  return norm(p["norm"], x)


def fuse_vectors(kind, p, x, sketches):
  """The kinds that read one vector per modality, for one example: x is a list of vectors."""
  match kind:
    case "concat":
      return np.concatenate(x)
    case "sum":
      return sum(x)
    case "average":
      return sum(x) / len(x)
    case "product":
      return np.prod(x, axis=0)
    case "scalar_gate" | "vector_gate":
      scores = linear(p["gate_projection"], np.concatenate(x)).reshape(len(x), -1)
      shares = np.exp(scores) / np.exp(scores).sum(0)
      return sum(share * np.tanh(linear(p[f"input_{i}_projection"], v)) for i, (share, v) in enumerate(zip(shares, x)))
    case "mlp":
      return linear(p["down_projection"], gelu(linear(p["up_projection"], np.concatenate(x))))
    case "bilinear":
      tensor = p["outer_projection"]["kernel"].reshape(len(x[0]), len(x[1]), -1)
      out = [x[0] @ tensor[:, :, k] @ x[1] for k in range(tensor.shape[2])]
      return np.array(out) + p["outer_projection"]["bias"]
    case "mfb":
      return power_normalize(rank_sum(p["rank_sum"], x))
    case "mutan":
      return rank_sum(p["core"], [np.tanh(linear(p[f"input_{i}_projection"], v)) for i, v in enumerate(x)])
    case "mcb":
      return power_normalize(sketched_outer(x, sketches))
  raise ValueError(kind)


def rank_sum(p, x, rank=3):
  """z_k = sum_r prod_i x_i . u_ikr"""
  factors = [linear(p[f"input_{i}_projection"], v) for i, v in enumerate(x)]
  width = len(factors[0]) // rank
  return np.array([sum(math.prod(f[k * rank + r] for f in factors) for r in range(rank)) for k in range(width)])


def sketched_outer(x, sketches, dim=8):
  """The count sketch of the outer product itself: feature (i, j, ...) falls into the sum of its buckets."""
  out = np.zeros(dim)
  for place in np.ndindex(*[len(v) for v in x]):
    bucket = sum(sketches[m][0][i] for m, i in enumerate(place)) % dim
    out[bucket] += math.prod(sketches[m][1][i] * x[m][i] for m, i in enumerate(place))
  return out


def power_normalize(z):
  z = np.sign(z) * np.sqrt(np.abs(z))
  return z / np.linalg.norm(z)


def decoder_block(p, x, mask, context, context_mask):
  h = norm(p["norm1"], x)
  x = x + attend(p["attention"], h, h, mask)
  x = x + attend(p["cross_attention"], norm(p["norm_cross"], x), context, context_mask)
  return x + mlp(p["mlp"], norm(p["norm2"], x))


def cross_attention(p, tokens, masks, depth):
  x, context, context_mask = tokens[0], np.concatenate(tokens[1:]), np.concatenate(masks[1:])
  for layer in range(depth):
    x = decoder_block(p["decoder"][f"block_{layer}"], x, masks[0], context, context_mask)
  out = norm(p["decoder"]["norm"], x)
  return out, out[0]


def co_attention(p, tokens, masks, depth):
  for layer in range(depth):
    others = [[j for j in range(len(tokens)) if j != i] for i in range(len(tokens))]
    tokens = [
      decoder_block(
        p[f"input_{i}_block_{layer}"],
        tokens[i],
        masks[i],
        np.concatenate([tokens[j] for j in others[i]]),
        np.concatenate([masks[j] for j in others[i]]),
      )
      for i in range(len(tokens))
    ]
  return streams_out(p, tokens, masks)


def streams_out(p, tokens, masks):
  tokens = [norm(p[f"input_{i}_norm"], x) for i, x in enumerate(tokens)]
  firsts = [x[0] for x, mask in zip(tokens, masks) if mask.any()]
  return np.concatenate(tokens), sum(firsts) / len(firsts)


def early(p, tokens, masks, depth):
  typed = [x + p["token_type_embedding"][i] for i, x in enumerate(tokens)]
  out = transformer(p["joint"]["transformer"], np.concatenate(typed), np.concatenate(masks), depth)
  return out, out[0]


def merged(p, tokens, masks, depth):
  projected = [linear(p[f"input_{i}_projection"], x) for i, x in enumerate(tokens)]
  row, mask = np.concatenate([p["class_token"], *projected]), np.concatenate([[True], *masks])
  out = transformer(p["joint"]["transformer"], row, mask, depth)
  return out[1:], out[0]


def bottleneck(p, tokens, masks, depth):
  shared, count = p["bottleneck_tokens"], len(p["bottleneck_tokens"])
  for layer in range(depth):
    rows = [
      block(p[f"input_{i}_block_{layer}"], np.concatenate([x, shared]), np.concatenate([mask, [True] * count]))
      for i, (x, mask) in enumerate(zip(tokens, masks))
    ]
    tokens = [row[:-count] for row in rows]
    written = [row[-count:] for row, mask in zip(rows, masks) if mask.any()]
    shared = sum(written) / len(written)
  return streams_out(p, tokens, masks)


def late(p, vectors, masks):
  answers = [linear(p[f"input_{i}_projection"], v) for i, v in enumerate(vectors)]
  there = [answer for answer, mask in zip(answers, masks) if mask.any()]
  return np.stack(answers), sum(there) / len(there)


def neighbours(tokens, masks, own=1, cross=2):
  """For each token the set of those that it is joined to: itself, the most similar, and whoever chose it."""
  place = [(m, i) for m, x in enumerate(tokens) for i in range(len(x))]
  rows, real = np.concatenate(tokens), np.concatenate(masks)
  unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  joined = [{i} if real[i] else set() for i in range(len(rows))]
  for i, m in np.ndindex(len(rows), len(tokens)):
    others = [j for j in range(len(rows)) if place[j][0] == m and real[j] and j != i]
    others.sort(key=lambda j: -unit[i] @ unit[j])
    for j in others[: own if place[i][0] == m else cross] if real[i] else []:
      joined[i].add(j)
      joined[j].add(i)
  return joined


def graph(p, tokens, masks, depth, layer):
  joined, x, real = neighbours(tokens, masks), np.concatenate(tokens), np.concatenate(masks)
  for number in range(depth):
    y = linear(p[f"layer_{number}_projection"], norm(p[f"norm_{number}"], x))
    x = x + np.stack([layer(number, y, i, joined) if joined[i] else np.zeros_like(y[0]) for i in range(len(x))])
  x = norm(p["norm"], x)
  return x, x[real].mean(0)


def gcn(p, tokens, masks, depth):
  def layer(number, y, i, joined):
    return np.maximum(sum(y[j] / math.sqrt(len(joined[i]) * len(joined[j])) for j in joined[i]), 0)

  return graph(p, tokens, masks, depth, layer)


def gat(p, tokens, masks, depth):
  def layer(number, y, i, joined):
    reader, read = p[f"layer_{number}_reader"], p[f"layer_{number}_read"]
    out = []
    for head, part in enumerate(np.split(np.arange(y.shape[1]), HEADS)):
      scores = {j: y[i, part] @ reader[head] + y[j, part] @ read[head] for j in joined[i]}
      weights = {j: math.exp(score if score > 0 else 0.2 * score) for j, score in scores.items()}
      out.append(sum(weight * y[j, part] for j, weight in weights.items()) / sum(weights.values()))
    out = np.concatenate(out)
    return np.where(out > 0, out, np.expm1(out))

  return graph(p, tokens, masks, depth, layer)


TOKENS = {
  "cross_attention": cross_attention,
  "co_attention": co_attention,
  "merged_attention": merged,
  "early": early,
  "bottleneck": bottleneck,
  "gcn": gcn,
  "gat": gat,
}
