# make train   environment, data, 2,000 steps of training, one evaluation
# make record  environment, data, and airbench94 from nothing to 94%: --preset=airbench94,
#              evaluated over six views
# make board   environment, TensorBoard on all runs in LOGDIR at http://localhost:PORT
# make check   environment, lint, types and the fast tests, in under 2 minutes on 2 cores
# make test    environment, lint, types and all tests, in about 12 minutes
# make lint    environment, lint and types
# make faults  environment, the long versions of the tests of faults: 50 kills of a
#              trainer, 20,000 corrupted inputs a test; half an hour

PYTHON ?= python3
BIN := .venv/bin
STEPS ?= 2000
LOGDIR ?= .
PORT ?= 6006

# TensorFlow's start-up notes; 0 shows them.
export TF_CPP_MIN_LOG_LEVEL ?= 3

# Where the processor multiplies in bfloat16.
BF16 := $(shell grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo --use_bf16)

.PHONY: train record board check test lint faults

train: .venv/runtime
	$(BIN)/python cifar10_train.py --dataset=auto --max_steps=$(STEPS)
	$(BIN)/python cifar10_eval.py --run_once
	@echo
	@echo 'To resume up to 100,000 steps, the published run:'
	@echo '    $(BIN)/python cifar10_train.py --dataset=auto --max_steps=100000'

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

lint: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/runtime: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/development: requirements-dev.txt .venv/runtime
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
