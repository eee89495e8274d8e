"""The slice browser for notebooks: `browse(...)`."""

from sahlib.browser.widgets import browse as browse
