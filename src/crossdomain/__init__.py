"""Companion to *A Local Perturbation Theory for Cross-Domain Interference and Recovery in Multi-Domain RL*."""

__version__ = "0.1.0"
