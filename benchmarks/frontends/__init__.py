"""Pyro programs through ``pp.from_pyro`` beside Pyro's own NUTS.

``python -m benchmarks.frontends`` runs five programs in fresh processes: time per gradient, and the
time from the imports to 400 effective draws, compilation included.
"""
