"""Reports: figures and one self-contained HTML page per run, from an `Evaluation` and a training history."""
