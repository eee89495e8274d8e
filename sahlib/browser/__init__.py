"""The slice browser for notebooks: `browse(...)`."""

from .widgets import browse

__all__ = ["browse"]
