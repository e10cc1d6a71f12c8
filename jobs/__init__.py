"""Front doors: each module is a command, `python jobs/NAME.py` or, installed, `ssm-platform NAME` (`command`)."""
