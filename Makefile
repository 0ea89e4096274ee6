# Deep AUC maximisation for medical images, one target per stage.
#
#   make demo                          everything, on data it makes itself
#   make report COMP=melanoma          everything that a report needs, in order, what stands left alone
#   make finetune COMP=melanoma RUN="b5_384 b6_512" FOLDS="0 1"
#   make pretrain COMP=chexpert GPUS=8 TIME_LIMIT=8.5h
#
# An artifact is built when it is missing, or made of other members than today's, never because a clock moved. Weights and
# predictions carry the hashes of the tables they were made from; a stage refuses to mix others, saying what to delete.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

DATA ?= data
MODELS ?= models
SUBMISSIONS ?= submissions
COMP ?=
RUN ?=
FOLDS ?=
GPUS ?=
export DATA MODELS SUBMISSIONS

# An environment of your own (Kaggle, conda): make ... PYTHON=python. Packages that are there are left as they are.
PYTHON ?= .venv/bin/python
BASE_PYTHON ?= python3
REQUIREMENTS := $(shell cksum < requirements.txt | cut -d' ' -f1)
INSTALLED := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/installed-$(REQUIREMENTS))

# GPUS=8 on one machine; NODES=2 MASTER=host:29500 beside it on each of several that share the disk.
RENDEZVOUS = $(if $(NODES),--nnodes $(NODES) --rdzv-backend c10d --rdzv-endpoint $(MASTER) --rdzv-id $(COMP),--standalone)
LAUNCH = $(PYTHON) $(if $(GPUS),-m torch.distributed.run $(RENDEZVOUS) --nproc-per-node $(GPUS))
SELECT = $(COMP) $(if $(RUN),--run $(RUN)) $(if $(FOLDS),--folds $(FOLDS))

TARGETS = $(if $(RUN),$(addprefix $(COMP)/,$(RUN)),$(COMP))

# $(call lacking,artifact,selection): the targets that still lack it
lacking = $(PYTHON) -m pipeline.core.runs.job $(1) $(2)

.PHONY: help setup demo rehearse test test-slow test-gpu lint bench paper clean clean-folds needs-comp prepare folds pretrain \
        finetune metadata predict ensemble submit report score check kaggle kaggle-submit kaggle-scores \
        kaggle-rehearse codalab codalab-rehearse

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo "  COMP=melanoma  RUN=\"b5_384 b6_512\" (default: all)  FOLDS=\"0 1\" (default: all)  GPUS=8  TIME_LIMIT=8.5h  SMOKE=1"

setup: $(INSTALLED) ## install what requirements.txt lists, leaving packages that are there as they are
	@$(if $(INSTALLED),:,$(PYTHON) -m pipeline.core.runtime.install requirements.txt)

.venv/installed-$(REQUIREMENTS):
	$(BASE_PYTHON) -m venv .venv
	.venv/bin/python -m pipeline.core.runtime.install requirements.txt
	@rm -f .venv/installed-* && touch $@

needs-comp: | $(INSTALLED)
	@test -n "$(COMP)" || { echo "error: say which competition: make ... COMP=melanoma" >&2; exit 2; }

# ---- the stages, in order -------------------------------------------------------------------------------------------

prepare: needs-comp ## raw download -> images.csv and every size, in one pass
	@$(PYTHON) -m pipeline.core.runs.prepared $(TARGETS) || $(PYTHON) -m pipeline.prepare $(TARGETS)

folds: prepare ## patient-grouped, stratified, leak-audited folds (K=5 overrides the competition's number)
	@test -e $(DATA)/$(COMP)/folds.csv || $(PYTHON) -m pipeline.folds $(COMP) $(if $(K),--folds $(K))

pretrain: folds ## stage 1: cross-entropy
	@todo=$$($(call lacking,pretrained.safetensors,$(SELECT))); test -z "$$todo" || $(LAUNCH) -m pipeline.pretrain $$todo

finetune: pretrain ## stage 2: AUC margin loss with PESG
	@todo=$$($(call lacking,finetuned.safetensors,$(SELECT))); test -z "$$todo" || $(LAUNCH) -m pipeline.finetune $$todo

metadata: folds ## the network on patient columns
	@todo=$$($(call lacking,predictions.csv,$(COMP) --run metadata $(if $(FOLDS),--folds $(FOLDS)))); \
	test -z "$$todo" || $(PYTHON) -m pipeline.metadata $$todo

predict: finetune ## test-time augmentation: out-of-fold and test scores
	@todo=$$($(call lacking,predictions.csv,$(SELECT))); test -z "$$todo" || $(LAUNCH) -m pipeline.predict $$todo

ensemble: predict metadata ## align, average, blend; score every member with intervals
	@$(PYTHON) -m pipeline.core.runs.current ensemble $(TARGETS) || \
	  $(PYTHON) -m pipeline.ensemble $(TARGETS) $(if $(FOLDS),--folds $(FOLDS))

submit: ensemble ## the organiser's file, filled in and validated
	@$(PYTHON) -m pipeline.core.runs.current submit $(COMP) || $(PYTHON) -m pipeline.submit $(COMP)

report: submit ## one self-contained HTML page
	@$(PYTHON) -m pipeline.core.runs.current report $(COMP) || $(PYTHON) -m pipeline.report $(COMP)

clean-folds: needs-comp ## delete the frozen folds of COMP (weights made from other folds will be refused)
	rm -f $(DATA)/$(COMP)/folds.csv $(DATA)/$(COMP)/folds_dropped.csv $(DATA)/$(COMP)/folds_audit.json

# ---- elsewhere ------------------------------------------------------------------------------------------------------

score: needs-comp ## score FILE against TRUTH (READERS=folder counts radiologists below the curve)
	@$(PYTHON) -m pipeline.score $(COMP) --file $(FILE) --truth $(TRUTH) $(if $(READERS),--readers $(READERS)) $(ARGS)

check: needs-comp ## check FILE against what the organiser wants (SAMPLE=file with the ids, where raw is not at hand)
	@$(PYTHON) -m pipeline.submit $(COMP) --check $(FILE) $(if $(SAMPLE),--sample $(SAMPLE))

kaggle-submit: needs-comp ## send the submission with Kaggle's client (MESSAGE="...", DRY_RUN=1 only says)
	@$(PYTHON) -m pipeline.submit $(COMP) --send --message "$(MESSAGE)" $(if $(DRY_RUN),--dry-run) \
	  $(if $(KERNEL),--kernel $(KERNEL) --kernel-version $(VERSION))

kaggle-scores: needs-comp ## write the scores Kaggle gave into submissions/LOG.md
	@$(PYTHON) -m pipeline.submit $(COMP) --scores

kaggle: needs-comp ## an offline Kaggle dataset and notebooks (OWNER=you, TRAIN=target, RESUME=1)
	@$(PYTHON) -m pipeline.deploy.kaggle $(COMP) --owner $(OWNER) $(if $(TRAIN),--train $(TRAIN)) \
	  $(if $(RESUME),--resume) $(if $(TIME_LIMIT),--time-limit $(TIME_LIMIT)) $(if $(LICENCE),--licence $(LICENCE)) \
	  $(if $(KAGGLE_PYTHON),--python $(KAGGLE_PYTHON))

kaggle-rehearse: needs-comp ## run that notebook here, cut off from the network, and compare with home
	@$(PYTHON) -m pipeline.deploy.rehearsal.kaggle $(COMP)

codalab: needs-comp ## a CodaLab bundle: src/predict.py with weights
	@$(PYTHON) -m pipeline.deploy.codalab $(COMP)

codalab-rehearse: needs-comp ## run that bundle here, cut off from the network, and compare with home
	@$(PYTHON) -m pipeline.deploy.rehearsal.codalab $(COMP)

# ---- the project ----------------------------------------------------------------------------------------------------

# One thread: networks this small lose more to the second than they gain.
DEMO = OMP_NUM_THREADS=1 DATA=data/demo MODELS=models/demo SUBMISSIONS=submissions/demo SMOKE=1
DEMO_MELANOMA = RUN="b3_256 b5_384"
DEMO_CHEXPERT = RUN="densenet121_320 densenet169_320"

demo: | $(INSTALLED) ## install, make data, run every stage for melanoma and CheXpert (about 5 minutes)
	@$(DEMO) $(PYTHON) -m pipeline.demo
	@$(DEMO) $(MAKE) report COMP=melanoma $(DEMO_MELANOMA)
	@$(DEMO) $(MAKE) report COMP=chexpert $(DEMO_CHEXPERT)
	@$(DEMO) $(PYTHON) -m pipeline.summary melanoma chexpert

rehearse: | $(INSTALLED) ## both rehearsals on the demo's weights (after make demo)
	@$(DEMO) $(MAKE) kaggle COMP=melanoma OWNER=demo
	@$(DEMO) $(MAKE) kaggle-rehearse COMP=melanoma
	@$(DEMO) $(MAKE) codalab COMP=chexpert
	@$(DEMO) $(MAKE) codalab-rehearse COMP=chexpert

test: | $(INSTALLED) ## the fast tests
	$(PYTHON) -m pytest -m "not slow and not gpu"

test-slow: | $(INSTALLED) ## the tests that take minutes
	$(PYTHON) -m pytest -m "slow and not gpu"

test-gpu: | $(INSTALLED) ## the tests that need a GPU
	$(PYTHON) -m pytest -m gpu

lint: | $(INSTALLED) ## ruff
	$(PYTHON) -m ruff check .

bench: | $(INSTALLED) ## every benchmark, as ratios against what one would otherwise use
	@for file in tests/bench/bench_*.py; do $(PYTHON) -m tests.bench.$$(basename $$file .py); done

paper: | $(INSTALLED) ## the paper's tables and figures that the data there allow; ARGS="--epochs 10 --seeds 1" on a CPU
	$(PYTHON) -m pipeline.paper.everything $(ARGS)

clean: ## delete the demo's artifacts and caches (never your data or models)
	rm -rf data/demo models/demo submissions/demo .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
