"""How long a user waits for the first posterior, and for the next one in the same process.

``python -m benchmarks.first_call`` fits eight schools (non-centred, ten parameters) with ppcore and
with those of its peers that are installed, each in a fresh process, imports and compilation
included, and repeats all of them in turn.
"""
