"""How many gradients an engine spends until second moments are right to a tenth of their spread."""
