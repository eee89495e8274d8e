"""What is looked at in notebooks: `browse(...)` slices, `browse3d(...)` a scan in three planes."""

from sahlib.browser.three_d import browse3d as browse3d
from sahlib.browser.viewer import browse as browse
