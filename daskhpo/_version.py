"""The version, which a build reads from here."""

__version__ = "0.1.0"
