# One command each; every one sets up first whatever it needs.
#   make repro [PROFILE=default|smoke|lfw] [DATA=folder]   reproduce the results of a profile
#   make test      everything that is checked on every change
#   make docs      the site, in _docs/html
#   make lab       JupyterLab on the notebooks
#   make lab-test  every notebook in a real JupyterLab: all cells, all widgets (wants Chromium)
#   make plots     the scripts that draw DVC's curves, so that its pages need no network (wants npm)
#   make bench     the benchmarks, each against the naive or official way
#   make train-liveportrait   the long training whose weights lie in data/ (minutes on a GPU, hours on a CPU)
#   make clean     remove what the others made, keep the sources
PROFILE ?= default
DATA ?=
PYTHON ?= python3.11
PORT ?= 8888

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
VENV := $(CURDIR)/.venv
READY := .venv/.ready
export PATH := $(VENV)/bin:$(PATH)
export PYTHONHASHSEED := 0
# how long threads that wait keep their core: with no wait small steps take four times as long, and
# with the library's own long one two processes stand in each other's way; no result depends on it
export GOMP_SPINCOUNT ?= 1000
# large tensors out of memory that the process keeps: given back, as is usual from 32 MB on, it has to be cleared by
# the system each time it is asked for again, a fifth of a step of training; no result depends on it
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 17179869184
export FACEPRIVACY_DATA ?= $(if $(DATA),$(abspath $(DATA)))
PIPELINE := $(if $(filter default,$(PROFILE)),dvc.yaml,params/$(PROFILE)/dvc.yaml)
say = @echo "==> $(1)"

.PHONY: help setup data repro readme test docs lab lab-test plots bench pack train-liveportrait clean
help:
	@sed -n '2,10p' Makefile | sed 's/^# *//'

setup: $(READY)
$(READY): settings.ini setup.py constraints.txt
	$(call say,virtual environment in .venv)
	command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not here: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	pip check
	touch $(READY)

data: $(READY)
	$(call say,embedded data from .dvc/store)
	dvc pull --quiet data.dvc

external: FORCE
	@if [ -n "$(DATA)" ]; then
	  [ -e "$(DATA)/lfw" ] && [ -e "$(DATA)/models" ] || { echo "$(DATA): no lfw/ and models/ in it" >&2; exit 2; }
	  ln -sfn "$(abspath $(DATA))" external
	fi
	[ -e external/lfw ] || { echo "PROFILE=$(PROFILE) reads real faces and networks: make repro PROFILE=$(PROFILE) DATA=folder, a folder with lfw/ and models/" >&2; exit 2; }
FORCE:

repro: data $(if $(filter lfw,$(PROFILE)),external)
	@[ -e $(PIPELINE) ] || { echo "no profile $(PROFILE): there are default, smoke and lfw" >&2; exit 2; }
	echo "==> pipeline of profile $(PROFILE)"
	dvc repro $(PIPELINE)
	echo "==> numbers: results/$(PROFILE)/*/metrics.json; executed notebooks and figures beside them"
	[ $(PROFILE) = smoke ] || $(MAKE) --no-print-directory readme

readme: data
	$(call say,README.md from nbs/index.ipynb)
	python docs/readme.py

test: data
	$(call say,notebooks with their defaults)
	GOMP_SPINCOUNT=100 nbdev_test --n_workers 2
	$(call say,pytest)
	python -m pytest
	$(call say,the whole pipeline on a few people)
	$(MAKE) --no-print-directory repro PROFILE=smoke

docs: data
	$(call say,site)
	python docs/build.py

lab: data
	jupyter lab --port $(PORT) nbs

lab-test: data
	python -m pytest tests/lab_check.py

VEGA := vega@5.33.1 vega-lite@5.23.0 vega-embed@6.29.0
plots: $(READY)
	$(call say,scripts that draw curves without a network)
	mkdir -p .dvc/plots/vega
	dir=$$(mktemp -d)
	(cd $$dir && npm pack --silent $(VEGA) > /dev/null)
	for name in vega vega-lite vega-embed; do
	  tar -xzOf $$dir/$$name-[0-9]*.tgz package/build/$$name.min.js > .dvc/plots/vega/$$name.min.js
	done
	rm -r $$dir

bench: $(READY)
	@for f in tests/bench_*.py; do echo "==> $$f"; python $$f; done

pack: $(READY)
	$(call say,new embedded data: people rendered again and embedded by the default profile's recogniser)
	python docs/pack.py
	dvc add data
	dvc push data.dvc

LONG := results/scratch/43_long
train-liveportrait: data
	$(call say,LivePortrait on drawn people; what was stopped goes on where it was)
	mkdir -p $(LONG)
	papermill --engine tidy nbs/43_train_liveportrait.ipynb $(LONG)/43.ipynb -f params/train/43_train_liveportrait.yaml -p out $(LONG)
	rm -rf data/networks/liveportrait
	cp -r $(LONG)/weights data/networks/liveportrait
	dvc add data
	dvc push data.dvc

clean:
	rm -rf .venv _docs _proc .code .pytest_cache results/scratch results/smoke external *.egg-info
