"""sahlib: the thin library under the notebooks. Scans in, figures, tables and verdicts out."""

__version__ = "0.1.0"
