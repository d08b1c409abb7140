"""Steps that the tokenizers of all classes share: added tokens, and errors."""

from collections.abc import Mapping, Sequence

import tokenizers

from mmjax.interop.errors import InteropError
from mmjax.interop.tokenizer_files import FILES, NAMED, TOKENIZER, TokenizerFiles


def with_tokens(
  engine: tokenizers.Tokenizer,
  files: TokenizerFiles,
  defaults: Mapping[str, str],
  more: Sequence[str] = (),
  *,
  flags: Mapping[str, Mapping[str, bool]] | None = None,
) -> tokenizers.Tokenizer:
  """Add the tokens that the files add, in the order in which transformers adds them.

  Args:
    engine: the tokenizer.
    files: the files.
    defaults: special tokens of the class where the files name none.
    more: special tokens that the class itself adds last.
    flags: flags of special tokens, by name, that the class sets if the files name them by their text alone.
  """
  engine_tokens = engine.get_added_tokens_decoder().values()
  known = {repr(token) for token in engine_tokens}
  adding = [token for token in files.added() if repr(token) not in known]
  have = {token.content for token in (*engine_tokens, *adding)}
  named = []
  for name in NAMED:
    token = files.token(name, defaults.get(name))
    if token is not None and flags and name in flags and not isinstance(files.record.get(name), dict):
      token = tokenizers.AddedToken(token.content, special=True, **flags[name])
    named += [] if token is None else [token]
  for token in (*named, *files.extra(), *(tokenizers.AddedToken(text, special=True) for text in more)):
    if token.content not in have:
      have.add(token.content)
      adding.append(token)
  for token in adding:
    token.special = token.special or token.content in {one.content for one in named}
  engine.add_tokens(adding)
  return engine


def required(files: TokenizerFiles, name: str, defaults: Mapping[str, str]) -> str:
  """Text of a special token that the class needs."""
  token = files.token(name, defaults[name])
  if token is None:
    raise files.record.wrong(name, "a token")
  return token.content


def token_id(engine: tokenizers.Tokenizer, token: str) -> int:
  """Number of a token that was added."""
  found = engine.token_to_id(token)
  assert found is not None  # it was added
  return found


def missing(files: TokenizerFiles) -> InteropError:
  """Error for a folder without the vocabulary of its tokenizer."""
  others = [name for name in FILES if files.has(name)]
  return InteropError(
    f"{files.folder} has no {TOKENIZER}" + (f" (only {', '.join(others)})" if others else "") + "; with transformers, "
    "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes one"
  )
