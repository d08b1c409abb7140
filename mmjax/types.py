"""Records that cross package borders."""

from collections.abc import Mapping

import flax.struct
from jax import Array
from jaxtyping import Bool, Float

# One batch of examples, on the host (numpy) or on the devices (sharded over the batch axes). Every batch has the last
# two; of the others those that its source fills (mmjax.data.features). Keys:
#   image        float32 [batch, height, width, 3], normalised
#   text         int32   [batch, length], token ids, padded with the pad id: of a caption, a question, or a pair
#   text_words   int32   [batch, length], number of the word of each token, -1 for none (columns.text.Caption.words)
#   text_images  float32 [batch, images, frames, height, width, 3], images among the words of a text, normalised
#   text_said    bool    [batch, length], True for the words of a dialogue that the assistant says
#   segment      int32   [batch, length], of a pair: 0 in the first text, 1 in the second
#   next         int32   [batch], of a pair: 1 where the second text really follows the first
#   target       int32   [batch, length], token ids of the text that is written from `text`
#   answer       int32   [batch], the answer's class, -1 where it is none
#   answer_text  int32   [batch, answer length], token ids of the answer
#   answer_scores      float32 [batch, answers], soft score of every answer (columns.answer.Answer.scores)
#   answer_candidates  int32   [batch, candidates, answer length], token ids; the answer comes first
#   relevance    float32 [batch, height, width], 1 on the pixels that the question is about
#   group        int32   [batch], equal numbers are of one class (emoji)
#   image2, text2        another view of the same (data.views = 2)
#   index        int32   [batch], the example's number in its source: what per-example randomness is keyed on
#   concept      int32   [batch], equal numbers mean the same thing (false negatives of each other)
Batch = Mapping[str, Array]


@flax.struct.dataclass
class Encoded:
  """Result of every encoder and every fusion, so that they are interchangeable.

  Attributes:
    tokens: one vector per token (patch, word piece, frame).
    mask: True where a token is real, False where it is padding.
    pooled: one vector per example. Its width may differ from that of the tokens (ViT's pool="flat").
  """

  tokens: Float[Array, "batch length width"]
  mask: Bool[Array, "batch length"]
  pooled: Float[Array, "batch pooled_width"]
