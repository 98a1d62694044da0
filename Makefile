# make train   environment, data, 2,000 steps of training, one evaluation and its report
# make record  environment, data, and airbench94 from nothing to 94%: --preset=airbench94,
#              evaluated over six views
# make board   environment, TensorBoard on all runs in LOGDIR at http://localhost:PORT
# make check   environment, lint, types and the fast tests, in under 2 minutes on 2 cores
# make test    environment, lint, types and all tests, in about 20 minutes
# make lint    environment, lint and types
# make faults  environment, the long versions of the tests of faults: 50 kills of a
#              trainer, 20,000 corrupted inputs a test; half an hour
# make versions
#              environment, the fast tests with each TensorFlow and Python that is found,
#              each in an environment of 2 GB, removed after it; ONLY=2.18-3.10,2.21-3.13
#              names some

PYTHON ?= python3
BIN := .venv/bin
STEPS ?= 2000
LOGDIR ?= .
PORT ?= 6006
ONLY ?= all

# TensorFlow's start-up notes; 0 shows them.
export TF_CPP_MIN_LOG_LEVEL ?= 3

# Where the processor multiplies in bfloat16.
BF16 := $(shell grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo --use_bf16)

.PHONY: help train record board check test lint faults versions

help:
	@sed -n '/^# make/,/^$$/s/^# \{0,1\}//p' $(MAKEFILE_LIST)

train: .venv/runtime
	@began=$$(date +%s) && \
	$(BIN)/python cifar10_train.py --dataset=auto --max_steps=$(STEPS) && \
	$(BIN)/python cifar10_eval.py --run_once --report=cifar10_report && \
	seconds=$$(($$(date +%s) - began)) && \
	echo "Time: $$((seconds / 60)) minutes $$((seconds % 60)) seconds" && \
	echo && \
	echo 'Next:' && \
	echo '    $(BIN)/python cifar10_train.py --max_steps=100000      resume up to the published run' && \
	echo '    $(BIN)/python cifar10_predict.py --index=0             classify a test image' && \
	echo '    make record                                               another network, to 94%'

record: .venv/runtime
	$(BIN)/python cifar10_train.py --preset=airbench94 --train_dir=airbench94_train $(BF16)
	$(BIN)/python cifar10_eval.py --run_once --views=6 --checkpoint_dir=airbench94_train \
	    --eval_dir=airbench94_eval

board: .venv/runtime
	$(BIN)/tensorboard --logdir=$(LOGDIR) --port=$(PORT)

check: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

faults: .venv/development
	CIFAR10_FAULT_KILLS=50 CIFAR10_FUZZ_EXAMPLES=20000 \
	    $(BIN)/python -m pytest -s tests/programs/test_faults.py tests/fuzz

versions: .venv/development
	$(BIN)/python -m benchmarks.versions --only=$(ONLY)

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	    echo "$(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing);" \
	        'TensorFlow needs Python 3.10 to 3.13:' \
	        'name one by make PYTHON=python3.11' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/development: requirements-dev.txt .venv/runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
