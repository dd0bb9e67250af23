"""SEAL's knowledge incorporation as a domain plug-in."""

from sealkit.domains.knowledge.plugin import KnowledgeDomain
from sealkit.domains.knowledge.sequences import training_sequences

__all__ = ["KnowledgeDomain", "training_sequences"]
