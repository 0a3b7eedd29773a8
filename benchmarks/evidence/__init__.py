"""Log evidence of standard targets by plain tempered SMC, against the truth.

    python -m benchmarks.evidence [--targets funnel gmm9 ...] [--seeds 10] [--data FOLDER]
                                  [--out benchmarks/evidence.md]

Targets without data need nothing. The others read these files from the folder ``--data``, and are
left out without it; none of them is part of this repository:

sonar.csv, ionosphere.csv
    As the UCI repository has them (sonar.all-data, ionosphere.data): numbers, then the class.
finpines.csv
    x, y of 126 Finnish pine saplings, scaled to the unit square (``finpines`` of R's spatstat).
brownian.csv
    30 observations of a Brownian motion, one a line, "nan" in steps 11-20 (``OBSERVED_LOC`` of
    the Inference Gym's brownian_motion_missing_middle_observations).
seeds.csv
    r, n, x1, x2 of 21 plates (Crowder 1978; the BUGS example "Seeds").

Each seed is one run of the engine ``smc``; a table is printed, and written to ``--out``.
"""
