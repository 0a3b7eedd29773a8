"""The intermediate representation: string diagrams of Markov kernels."""

from ppcore.diagram.box import Box, Hole, Node, Plate
from ppcore.diagram.diagram import Diagram

__all__ = ["Box", "Diagram", "Hole", "Node", "Plate"]
