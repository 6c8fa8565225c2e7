"""Octopus: the hybrid cloud-to-edge event fabric for distributed science."""

__version__ = "0.1.0"
