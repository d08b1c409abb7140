"""Choice of the frames of a clip: evenly spread, random in equal segments, or so many per second."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Sampling = Literal["uniform", "random", "rate"]


def sampled(
  times: Float[np.ndarray, " frames"],
  seconds: float,
  count: int,
  sampling: Sampling,
  rate: float,
  rng: np.random.Generator | None,
) -> Int[np.ndarray, " chosen"]:
  """Choose frames of a clip, ascending, at most `count`. A frame is chosen if it is shown at a chosen time.

  With "uniform" the times are the middles of `count` equal segments; with "random" they are random times in these
  segments (Wang et al. 2016, TSN, section 3.1). A clip with at most `count` frames gives all of them. With "rate" they
  are 1/rate seconds apart, from a random beginning if the clip is longer than count/rate.

  Args:
    times: times of the frames in seconds, ascending from 0.
    seconds: duration of the clip.
    count: largest number of frames.
    sampling: the choice.
    rate: frames per second, for "rate".
    rng: random numbers. None: "random" is "uniform", and "rate" takes the middle of a longer clip.

  Example:
    >>> import numpy as np
    >>> sampled(np.arange(50) / 25, 2.0, 4, "uniform", 1.0, None).tolist()
    [6, 18, 31, 43]
    >>> sampled(np.arange(50) / 25, 2.0, 4, "rate", 2.0, None).tolist()
    [0, 12, 25, 37]
  """
  if sampling == "rate":
    spare = max(0.0, seconds - count / rate)
    start = spare * (0.5 if rng is None else float(rng.random()))
    chosen = start + np.arange(count) / rate
    chosen = chosen[chosen < seconds]
  else:
    if len(times) <= count:
      return np.arange(len(times))
    within = rng.random(count) if rng is not None and sampling == "random" else np.full(count, 0.5)
    chosen = (np.arange(count) + within) * seconds / count
  places = np.searchsorted(times, chosen + 1e-9, side="right") - 1
  return np.maximum(places, 0)
