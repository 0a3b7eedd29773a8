"""The posteriors of posteriordb as ppcore models, and a benchmark that fits them.

``python -m benchmarks.posteriordb --data PATH`` compares ppcore's planner with its engines and with
other libraries, every cell in a fresh process; ``--engine NAME`` judges one engine alone. It takes
any directory in posteriordb's layout (Magnusson et al. 2025, doi:10.48550/arXiv.2407.04967):
``posteriors/*.json`` name the data and the reference draws, which are zipped JSON files below
``data/data`` and ``reference_posteriors/draws/draws``.
"""
