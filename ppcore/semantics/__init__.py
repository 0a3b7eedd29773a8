"""Semantics: structure-preserving maps from diagrams to things that compute."""
