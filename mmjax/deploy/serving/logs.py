"""Log of a service: one JSON object per line on standard error, without what users have sent."""

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

NAME = "mmjax.deploy.requests"
requests = logging.getLogger(NAME)


class JsonLines(logging.Formatter):
  """Format records as JSON. Of an exception, its type and its place are shown, but not its message.

  A message may quote what a user has sent.
  """

  def format(self, record: logging.LogRecord) -> str:
    line: dict[str, Any] = {
      "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
      "level": record.levelname.lower(),
      "message": record.getMessage(),
      **getattr(record, "fields", {}),
    }
    if record.exc_info and record.exc_info[0] is not None:
      frames = traceback.extract_tb(record.exc_info[2])
      line |= {"exception": record.exc_info[0].__name__, "at": [f"{each.filename}:{each.lineno}" for each in frames]}
    return json.dumps(line)


def log_json(stream: TextIO | None = None) -> None:
  """Send all logs to a stream (None: standard error) as JSON."""
  handler = logging.StreamHandler(stream or sys.stderr)
  handler.setFormatter(JsonLines())
  logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
  for name in (NAME, "mmjax.deploy"):
    logging.getLogger(name).setLevel(logging.INFO)


def request(**fields: Any) -> None:
  """Log a request that was answered."""
  if requests.isEnabledFor(logging.INFO):
    record = logging.LogRecord(NAME, logging.INFO, __file__, 0, "request", (), None)  # the caller is not looked up
    record.fields = fields
    requests.handle(record)
