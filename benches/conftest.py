"""One thread for both sides: two pools in one process, each waiting actively, disturb each other."""

import os

# Before numpy is imported: its BLAS reads them once.
for _name in ("FERROGRAD", "OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_name}_NUM_THREADS"] = "1"
