"""The slice browser for notebooks: `browse(...)`."""

from sahlib.browser.viewer import browse as browse
