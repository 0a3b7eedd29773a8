"""Samplers of hard targets side by side: evidence, draws, modes, gradients and seconds.

    python -m benchmarks.samplers [--targets funnel gmm9 ...] [--engines smc flow ...] [--seeds 5]
                                  [--data FOLDER] [--results FILE] [--markdown FILE]

Every engine on every target runs in a process of its own, with a limit on its time, and each seed
is written to ``--results`` as one line of JSON as soon as it is done; what is there already is not
run again. What is run, and with which settings, is in ``settings.toml``. Targets with data need
the files that :mod:`benchmarks.evidence` describes, in the folder ``--data``.

Nothing here chooses a device: with JAX for a GPU installed, the same command runs on it.
"""
