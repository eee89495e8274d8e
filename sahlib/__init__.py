"""sahlib: the thin library under the notebooks. Scans in, figures, tables and verdicts out."""

import getpass
import os
import tempfile

__version__ = "0.1.0"

# In a container a user may have a number and neither name nor home; MONAI and Jupyter ask for both.
try:
    getpass.getuser()
except (KeyError, OSError):
    os.environ["LOGNAME"] = "nobody"
if os.path.expanduser("~") in ("~", "/"):
    os.environ["HOME"] = tempfile.gettempdir()
