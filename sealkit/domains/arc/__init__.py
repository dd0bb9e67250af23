"""SEAL's few-shot ARC setting as a domain plug-in."""

from sealkit.domains.arc.plugin import ArcDomain

__all__ = ["ArcDomain"]
