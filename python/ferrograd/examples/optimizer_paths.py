"""Seven optimizers start at one place: on a saddle, and in a long valley.

Shows why there is more than one of them: plain descent hardly leaves the saddle and creeps along the valley.
"""

from collections.abc import Sequence

import ferrograd as fg
from ferrograd.examples.pictures import Parser, save


def main(argv: Sequence[str] | None = None) -> None:
    """Run them, and print where each has come to."""
    out = Parser(__doc__).parse_args(argv).out

    for surface in ("saddle", "valley"):
        paths = fg.viz.optimizer_paths(surface, steps=120)
        print(f"{surface}\n{paths}\n")
        if out:
            save(paths.plot(), out / f"paths_{surface}.png")


if __name__ == "__main__":
    main()
