"""`ferrograd playground`: reads the options; what serves is imported when it runs."""

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--port", type=_port, default=8765, metavar="N", help="0 takes any that is free (default: 8765)"
    )
    parser.add_argument("--no-browser", action="store_true", help="only say the address")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help=".csv of two numbers and a class a row",
    )


def run(arguments: argparse.Namespace) -> None:
    """Watch a small network train on points in the plane, in the browser, until Ctrl-C."""
    from ferrograd.playground.points import read_csv
    from ferrograd.playground.server import Server
    from ferrograd.playground.session import Session
    from ferrograd.table import InputError

    session = Session(None if arguments.data is None else read_csv(arguments.data))
    try:
        server = Server(session, arguments.port)
    except OSError as error:
        session.close()
        raise InputError(
            f"--port: {arguments.port} on the loopback address cannot be used: {error.strerror}"
        ) from error
    print(f"ferrograd playground: {server.url} (Ctrl-C stops it)", flush=True)
    try:
        if not arguments.no_browser:
            import threading
            import webbrowser

            # Some browsers return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        server.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        print("ferrograd playground: stopped")
    finally:
        server.server_close()
        session.close()


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 65535, got {text!r}")
    return int(text)
