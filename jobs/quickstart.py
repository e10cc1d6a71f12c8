"""From nothing to a model you can serve: `make quickstart`.

Synthetic corpora, training on a Ray cluster that it starts, evaluation, report, and a prediction on a sample video,
each by the same command that does it alone. Ends by saying where everything is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from ssm_platform.base import front_door

JOBS = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", default="quickstart", help="recipe of jobs/train.py (tiny: half a minute of training)"
    )
    parser.add_argument("--storage", type=Path, default=Path("runs"), help="folder of runs")
    arguments = parser.parse_args()
    started = time.monotonic()
    run = arguments.storage / arguments.recipe
    _step("train, evaluate, report", "train.py", f"--recipe={arguments.recipe}", f"--storage={arguments.storage}")
    sample = run / "sample" / "sample.mp4"
    _step("render a sample video", "synthesize.py", "--sample-video", str(sample))
    _step(
        "predict it", "predict.py", str(sample), "--model", str(run / "model"), "--out", str(sample.parent), "--plots"
    )
    print(f"""
Done in {(time.monotonic() - started) / 60:.1f} minutes.
  report       {(run / "report.html").resolve()}
  model        {(run / "model").resolve()}
  prediction   {sample.parent.resolve()}
Serve the model and open http://127.0.0.1:8000 with:
  {Path(sys.executable).with_name("python")} jobs/deploy.py --model {run / "model"}""")


def _step(title: str, script: str, *arguments: str) -> None:
    print(f"== {title}: python jobs/{script} {' '.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, str(JOBS / script), *arguments], check=False).returncode
    if code:
        sys.exit(f"quickstart: jobs/{script} ended with exit code {code}; its last lines are above")


if __name__ == "__main__":
    front_door(main)
