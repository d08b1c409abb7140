"""Errors of requests, with the status code of the answer."""

from collections.abc import Mapping


class Refused(Exception):
  """A request that is answered with an error.

  Attributes:
    status: HTTP status code.
    message: a sentence for the client. It says what is wrong, and the remedy.
    headers: more headers of the answer.
  """

  def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
    super().__init__(message)
    self.status, self.message, self.headers = status, message, dict(headers or {})


def busy() -> Refused:
  """The refusal of a request that finds the queue full."""
  return Refused(503, "The service is busy. Try again after a second.", {"Retry-After": "1"})
