"""How far a fit strays from scikit-learn's: the largest difference of `loss_curve_` over 20 epochs by cell.

For lbfgs, which has no curve: the larger of the differences of `loss_` and of `coefs_` after 20 iterations.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from trajectory import CELLS, FORMS, SOLVERS, TASKS, difference


def main() -> None:
    """Print the table."""
    print(f"| {'task, solver':22} | " + " | ".join(f"{form:14}" for form in FORMS) + " |")
    print("|" + "-" * 24 + "|" + "|".join("-" * 16 for _ in FORMS) + "|")
    for task in TASKS:
        for solver in SOLVERS:
            cells = []
            for form in FORMS:
                if (task, solver, form) not in CELLS:
                    cells.append(f"{'':14}")
                    continue
                found = difference(task, solver, form)
                apart = max(found.loss, found.coefs) if solver == "lbfgs" else found.loss
                same = "" if found.n_iter[0] == found.n_iter[1] else f" n_iter {found.n_iter}"
                cells.append(f"{apart:<14.1e}{same}")
            print(f"| {task + ', ' + solver:22} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
