"""The option that all examples have, and what it writes."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["Parser", "save"]


class Parser(argparse.ArgumentParser):
    """Reads ``--out FOLDER`` and what an example adds; the help is the example's docstring."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument(
            "--out", type=_folder, metavar="FOLDER", help="write pictures here (needs matplotlib)"
        )


def save(axes: Any, path: Path) -> None:
    """Write the picture that axes of matplotlib lie in."""
    axes.figure.savefig(path)


def _folder(text: str) -> Path:
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no folder to write to: {error.strerror}") from error
    return folder
