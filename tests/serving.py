"""A playground's server while a test asks it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ferrograd.playground.server import Server
from ferrograd.playground.session import Session


@contextmanager
def serving(session: Session) -> Iterator[Server]:
    made = Server(session, 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()
