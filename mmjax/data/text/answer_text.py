"""Answers in the form in which the VQA evaluation compares them."""

import re

# Contractions that are restored where one of their apostrophes is missing ("dont", "couldn'tve"). Words that are also
# something else without it (hell, ill, its, shed, were) are not among them.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's i'd've isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
_RESTORED = {c[:at] + c[at + 1 :]: c for c in _CONTRACTIONS for at, letter in enumerate(c) if letter == "'"}
_NUMBERS = {
  word: str(number)
  for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}  # fmt: skip
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


def tidy(answer: str) -> str:
  """Line breaks and tabs as spaces, nothing at the ends."""
  return answer.replace("\n", " ").replace("\t", " ").strip()


def normalize_answer(answer: str) -> str:
  """Lower case, number words as digits, no articles, no punctuation, apostrophes where contractions have them.

  Equals what the VQA evaluation does (Antol et al. 2015; visualqa.org/evaluation.html): a punctuation mark is dropped
  where any of its kind touches a space, or a number has a comma, and becomes a space elsewhere; a full stop stays only
  before a digit.
  """
  answer = tidy(answer)
  text = answer
  comma = _NUMBER_WITH_COMMA.search(answer)
  for mark in _PUNCTUATION:
    dropped = comma or f"{mark} " in answer or f" {mark}" in answer
    text = text.replace(mark, "" if dropped else " ")
  words = (_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", text).lower().split())
  return " ".join(_RESTORED.get(word, word) for word in words if word not in _ARTICLES)
