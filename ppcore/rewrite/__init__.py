"""Rewrites: diagrams (with their data) to diagrams that mean the same."""
