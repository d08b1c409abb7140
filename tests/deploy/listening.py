"""The service behind a real socket, in a thread of the test."""

import contextlib
import threading
import time


@contextlib.contextmanager
def listening(app, **config):
  """(address, server) of an application. `config`: more settings of uvicorn."""
  import uvicorn

  from mmjax.deploy.serving.command import bound

  listener = bound("127.0.0.1", 0)
  server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", **config))
  thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
  thread.start()
  try:
    while not server.started:
      time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/", server
  finally:
    server.should_exit = True
    thread.join(30)
