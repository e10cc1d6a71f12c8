"""What serving costs beside the bare model: `python bench/serve.py [--help]`; see `bench/serving/measure.py`.

It lies a folder deeper because Ray puts a script's folder on its workers' path, where a file named serve.py would hide
the package `serve`.
"""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    os.execv(sys.executable, [sys.executable, str(Path(__file__).parent / "serving" / "measure.py"), *sys.argv[1:]])
