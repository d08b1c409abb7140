"""Stories from templates: five sentences about two people and a thing, which share people, things and places.

The topic does not tell which sentence follows. The sentences that do not follow have the same position in a story of
the same topic, but are about other people, things and places. A masked word of one sentence of a pair often occurs in
the other sentence.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

HELD_OUT_FRACTION = 0.1
DECOYS = 4

PEOPLE = (
  *("anna", "ben", "clara", "david", "emma", "felix", "grace", "henry", "ida", "jonas"),
  *("karen", "louis", "maria", "noah", "olga", "peter", "rosa", "simon", "tina", "victor"),
)
# For each topic: things and places.
TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
  "farm": (
    ("bucket", "saddle", "rope", "shovel", "egg", "pumpkin", "lantern", "rake"),
    ("barn", "stable", "meadow", "orchard", "well", "hayloft"),
  ),
  "harbour": (
    ("anchor", "net", "oar", "barrel", "compass", "flag", "shell", "sail"),
    ("pier", "lighthouse", "boathouse", "beach", "deck", "dock"),
  ),
  "school": (
    ("pencil", "globe", "violin", "satchel", "ruler", "map", "chalk", "notebook"),
    ("library", "classroom", "gym", "playground", "canteen", "hall"),
  ),
  "town": (
    ("umbrella", "newspaper", "parcel", "bicycle", "hat", "clock", "ticket", "vase"),
    ("station", "market", "bakery", "museum", "park", "square"),
  ),
}
QUALITIES = ("old", "new", "small", "heavy", "broken", "golden", "wooden", "dusty")
# Templates of each sentence.
PLOT: tuple[tuple[str, ...], ...] = (
  ("{one} found a {quality} {thing} in the {start}.", "in the {start} {one} saw a {quality} {thing}."),
  ("{one} took the {thing} to the {goal}.", "the {thing} was for the {goal}, and {one} left."),
  ("at the {goal} {one} met {two}.", "{two} sat in the {goal} and greeted {one}."),
  ("{two} asked {one} about the {thing}.", '"is this my {thing}?" {two} asked {one}.'),
  ("so {one} gave the {thing} to {two}.", "then {two} got the {thing} from {one}."),
)


@dataclass(frozen=True)
class Cast:
  """Topic, people, thing and places of a story."""

  topic: str
  one: str
  two: str
  thing: str
  quality: str
  start: str
  goal: str


@dataclass(frozen=True)
class StoryPair:
  """A sentence, the sentence that follows it, and sentences at the same position of other stories of the topic."""

  first: str
  second: str
  others: tuple[str, ...]
  topic: str


def is_held_out(cast: Cast) -> bool:
  """True if a story is in the held-out split. This depends on the first person and the thing, which all pairs name."""
  digest = hashlib.sha256(f"{cast.one} {cast.thing}".encode()).digest()
  return int.from_bytes(digest[:8], "big") < HELD_OUT_FRACTION * 2**64


def story_pair(index: int, *, seed: int, held_out: bool) -> StoryPair:
  """Make a pair of a split. It depends on the arguments alone. The index cycles through the positions in a story.

  Args:
    index: number of the pair.
    seed: seed of the random choices.
    held_out: True for the held-out split.
  Returns: the pair.
  """
  rng = random.Random(f"{seed} {held_out} {index}")
  cast = _cast(rng)
  while is_held_out(cast) != held_out:
    cast = _cast(rng)
  place = index % (len(PLOT) - 1)
  first, second = (_say(rng, sentence, cast) for sentence in PLOT[place : place + 2])
  others = tuple(_say(rng, PLOT[place + 1], _cast(rng, unlike=cast)) for _ in range(DECOYS))
  return StoryPair(first, second, others, cast.topic)


def _cast(rng: random.Random, unlike: Cast | None = None) -> Cast:
  """Draw a cast. With `unlike`, it has the topic of that cast, but other people, another thing and other places."""
  taken = () if unlike is None else (unlike.one, unlike.two, unlike.thing, unlike.start, unlike.goal)
  topic = rng.choice(list(TOPICS)) if unlike is None else unlike.topic
  things, places = (_without(words, taken) for words in TOPICS[topic])
  one, two = rng.sample(_without(PEOPLE, taken), 2)
  start, goal = rng.sample(places, 2)
  return Cast(topic, one, two, rng.choice(things), rng.choice(QUALITIES), start, goal)


def _without(words: Sequence[str], taken: Sequence[str]) -> list[str]:
  return [word for word in words if word not in taken]


def _say(rng: random.Random, ways: Sequence[str], cast: Cast) -> str:
  return rng.choice(ways).format(**vars(cast))
