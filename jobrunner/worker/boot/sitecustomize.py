"""What a worker's interpreter of Python 3.10 runs first, before its working directory is put on the path.

``python -m`` puts the working directory first, where a user's ``queue.py`` would stand before the standard library's;
later versions can be told not to (PYTHONSAFEPATH).  Here, all that the start needs is imported before.  The directory
of this file is on the path for that moment only, and a `sitecustomize` of the user's own is run as ever.
"""

import contextlib
import importlib.machinery
import importlib.util
import os
import runpy  # noqa: F401 (imported for being imported)
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != _HERE]
_others = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path != _HERE]
os.environ["PYTHONPATH"] = os.pathsep.join(_others)
if not any(_others):
    del os.environ["PYTHONPATH"]

with contextlib.suppress(ImportError):
    import loky.backend.resource_tracker  # noqa: F401 (likewise)

_spec = importlib.machinery.PathFinder.find_spec("sitecustomize")
if _spec is not None and _spec.loader is not None:
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["sitecustomize"] = _module
    _spec.loader.exec_module(_module)
