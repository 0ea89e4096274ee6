# Deep AUC maximisation for medical images, one target per stage.
#
#   make demo                          everything, on data it makes itself
#   make report COMP=melanoma          everything that a report needs, in order, what stands left alone
#   make finetune COMP=melanoma RUN="b5_384 b6_512" FOLDS="0 1"
#   make pretrain COMP=chexpert GPUS=8 TIME_LIMIT=8.5h
#   make report COMP=melanoma ON=slurm     as jobs of Slurm; ON=local: folds side by side on this machine's GPUs
#
# What exists is compared with what today's configuration makes: dear artifacts (weights, predictions) made otherwise are
# refused, naming the field and `make forget`; cheap ones are made anew. For a scheduler: make itself ends with 2 for any
# error; `python -m pipeline.<stage> TARGET` ends with 75 when a time limit stopped it and the same command goes on.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Roots. A smoke run (SMOKE=1) keeps its models and submissions apart.
SMOKING := $(filter-out 0,$(SMOKE))
DATA ?= data
MODELS ?= models$(if $(SMOKING),/smoke)
SUBMISSIONS ?= submissions$(if $(SMOKING),/smoke)
export DATA MODELS SUBMISSIONS

# What to make.
COMP ?=#        the competition: melanoma
RUN ?=#         its runs: "b5_384 b6_512" (default: all)
FOLDS ?=#       folds: "0 1" (default: all)
K ?=#           how many folds to make (default: what the competition's file says)

# On what: GPUS=8 on one machine; NODES=2 MASTER=host:29500 beside it on each of several that share the disk.
# ON=slurm submits, ON=local packs (PER_GPU folds a GPU); empty: one after the other. SITE: what sbatch is told.
ON ?=
PER_GPU ?=
SITE ?=
export PER_GPU SITE
GPUS ?=
NODES ?=
MASTER ?=

# For single targets: a file, its truth, radiologists, a sample; new images, their patient columns, where their scores
# go; Kaggle's user; what to train there; a stage to begin at.
FILE ?=
TRUTH ?=
READERS ?=
SAMPLE ?=
IMAGES ?=
METADATA ?=
OUT ?=
OWNER ?=
TRAIN ?=
RESUME ?=
LICENCE ?=
MESSAGE ?=
KERNEL ?=
VERSION ?=
DRY_RUN ?=
STAGE ?=
ARGS ?=

# An environment of your own (Kaggle, conda): make ... PYTHON=python. Packages that are there are left as they are.
PYTHON ?= .venv/bin/python
BASE_PYTHON ?= python3
REQUIREMENTS := $(shell cksum < requirements.txt | cut -d' ' -f1)
INSTALLED := $(if $(filter .venv/bin/python,$(PYTHON)),.venv/installed-$(REQUIREMENTS))

RENDEZVOUS = $(if $(NODES),--nnodes $(NODES) --rdzv-backend c10d --rdzv-endpoint $(MASTER) --rdzv-id $(COMP),--standalone)
LAUNCH = $(PYTHON) $(if $(GPUS),-m pipeline.core.runtime.torchrun $(RENDEZVOUS) --nproc-per-node $(GPUS))
# $(call make_up_to,STAGE): run, on ON or else one after the other, what STAGE and the stages before it have still to make.
# `pipeline.todo` answers for all of them; when it fails, its one line is all that is said.
make_up_to = $(if $(ON),$(schedule),$(one_by_one))
define schedule
	@$(PYTHON) -m pipeline.schedule $(1) "$(COMP)" --on "$(ON)" --run "$(RUN)" --folds "$(FOLDS)" --k "$(K)" \
	  $(if $(GPUS),--gpus $(GPUS)) $(if $(NODES),--nodes $(NODES))
endef
define one_by_one
	@before=; while :; do \
	  todo=$$($(PYTHON) -m pipeline.todo $(1) "$(COMP)" --run "$(RUN)" --folds "$(FOLDS)" --k "$(K)") || exit $$?; \
	  test -n "$$todo" || break; \
	  test "$$todo" != "$$before" || { echo "error: $$todo: it ran, and its artifacts are still missing" >&2; exit 2; }; \
	  before=$$todo; \
	  case $${todo%% *} in pretrain|finetune|predict) start="$(LAUNCH)";; *) start="$(PYTHON)";; esac; \
	  $$start -m pipeline.$$todo || exit $$?; \
	done
endef

# $(call need,NAME,EXAMPLE): an error where a variable is empty
need = @test -n "$($(1))" || { echo "error: $(1) is empty; write $(1)=$(2)" >&2; exit 2; }

.PHONY: help score-images setup demo rehearse test test-slow test-faults test-slurm test-gpu lint bench paper proof clean clean-folds needs-comp \
        prepare folds pretrain finetune metadata predict ensemble submit report status cancel forget score check kaggle kaggle-submit kaggle-scores \
        kaggle-rehearse codalab codalab-rehearse

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo "  COMP=melanoma  RUN=\"b5_384 b6_512\" (default: all)  FOLDS=\"0 1\" (default: all)  ON=slurm|local  GPUS=8  TIME_LIMIT=8.5h  SMOKE=1"

setup: $(INSTALLED) ## install what requirements.txt lists, leaving packages that are there as they are
	@$(if $(INSTALLED),:,$(PYTHON) -m pipeline.core.runtime.install requirements.txt)

.venv/installed-$(REQUIREMENTS):
	$(BASE_PYTHON) -m venv .venv
	.venv/bin/python -m pipeline.core.runtime.install requirements.txt
	@rm -f .venv/installed-* && touch $@

needs-comp: | $(INSTALLED)
	@test -n "$(COMP)" || { echo "error: say which competition: make ... COMP=melanoma" >&2; exit 2; }

# ---- the stages, in order -------------------------------------------------------------------------------------------

prepare: needs-comp ## raw download -> images.csv and every size, in one pass; damaged images are found and made again
	$(if $(ON),$(call schedule,prepare),@$(PYTHON) -m pipeline.prepare $(or $(addprefix $(COMP)/,$(RUN)),$(COMP)))

folds: | $(INSTALLED) ## patient-grouped, stratified, leak-audited folds (K=5 overrides the competition's number)
	$(call make_up_to,folds)

pretrain: | $(INSTALLED) ## stage 1: cross-entropy
	$(call make_up_to,pretrain)

finetune: | $(INSTALLED) ## stage 2: AUC margin loss with PESG
	$(call make_up_to,finetune)

metadata: | $(INSTALLED) ## the network on patient columns
	$(call make_up_to,metadata)

predict: | $(INSTALLED) ## test-time augmentation: out-of-fold and test scores
	$(call make_up_to,predict)

ensemble: | $(INSTALLED) ## align, average, blend; score every member with intervals
	$(call make_up_to,ensemble)

submit: | $(INSTALLED) ## the organiser's file, filled in and validated
	$(call make_up_to,submit)

report: | $(INSTALLED) ## one self-contained HTML page
	$(call make_up_to,report)

status: needs-comp ## how far every fold of RUN is: done, running where, interrupted, missing (ARGS=--watch)
	@$(PYTHON) -m pipeline.status $(addprefix $(COMP)/,$(RUN)) $(if $(RUN),,$(COMP)) $(ARGS)

cancel: needs-comp ## cancel the jobs that Slurm has of COMP; those that run write a checkpoint first
	@$(PYTHON) -m pipeline.cancel $(COMP)

forget: needs-comp ## remove weights and predictions of RUN, FOLDS (STAGE=finetune keeps stage 1), listing them first
	@$(PYTHON) -m pipeline.forget $(COMP) --run "$(RUN)" --folds "$(FOLDS)" $(if $(STAGE),--stage $(STAGE))

clean-folds: needs-comp ## delete the frozen folds of COMP (weights made from other folds will be refused)
	@rm -fv "$(DATA)/$(COMP)/folds.csv" "$(DATA)/$(COMP)/folds_dropped.csv" "$(DATA)/$(COMP)/folds_audit.json"

# ---- elsewhere ------------------------------------------------------------------------------------------------------

score: needs-comp ## score FILE against TRUTH (READERS=folder counts radiologists below the curve)
	$(call need,FILE,predictions.csv)
	$(call need,TRUTH,groundtruth.csv)
	@$(PYTHON) -m pipeline.score $(COMP) --file $(FILE) --truth "$(TRUTH)" $(if $(READERS),--readers "$(READERS)") $(ARGS)

check: needs-comp ## check FILE against what the organiser wants (SAMPLE=file with the ids, where raw is not at hand)
	$(call need,FILE,predictions.csv)
	@$(PYTHON) -m pipeline.submit $(COMP) --check "$(FILE)" $(if $(SAMPLE),--sample "$(SAMPLE)")

score-images: | $(INSTALLED) ## score a folder of new IMAGES into OUT=scores.csv (METADATA=csv of patient columns)
	$(call need,IMAGES,folder)
	$(call need,OUT,scores.csv)
	$(call make_up_to,ensemble)
	@$(PYTHON) -m pipeline.deploy.score_images "$(COMP)" --run "$(RUN)" --images "$(IMAGES)" --out "$(OUT)" \
	  $(if $(METADATA),--metadata "$(METADATA)")

kaggle-submit: needs-comp ## send the submission with Kaggle's client (MESSAGE="...", DRY_RUN=1 only says)
	@$(PYTHON) -m pipeline.submit $(COMP) --send --message "$(MESSAGE)" $(if $(DRY_RUN),--dry-run) \
	  $(if $(KERNEL),--kernel $(KERNEL) --kernel-version $(VERSION))

kaggle-scores: needs-comp ## write the scores Kaggle gave into submissions/LOG.md
	@$(PYTHON) -m pipeline.submit $(COMP) --scores

kaggle: needs-comp ## an offline Kaggle dataset and notebooks (OWNER=you, LICENCE=, TRAIN=target, RESUME=1)
	$(call need,OWNER,your-kaggle-name)
	@$(PYTHON) -m pipeline.deploy.kaggle $(COMP) --owner "$(OWNER)" $(if $(TRAIN),--train $(TRAIN)) \
	  $(if $(RESUME),--resume) $(if $(TIME_LIMIT),--time-limit $(TIME_LIMIT)) --licence "$(LICENCE)" \
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
	@$(DEMO) $(MAKE) kaggle COMP=melanoma OWNER=demo LICENCE=other
	@$(DEMO) $(MAKE) kaggle-rehearse COMP=melanoma
	@$(DEMO) $(MAKE) codalab COMP=chexpert
	@$(DEMO) $(MAKE) codalab-rehearse COMP=chexpert

# A process a core, a module of tests each.
test: | $(INSTALLED) ## the fast tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --maxprocesses 4 --dist loadscope -m "not slow and not gpu"

test-slow: | $(INSTALLED) ## the tests that take minutes
	$(PYTHON) -m pytest -m "slow and not gpu and not faults and not slurm"

# Two processes, one a core; each prints a table of what it tried. FAULTS=4 changes four times as many bytes.
test-faults: | $(INSTALLED) ## harm done to artifacts, disks and processes: tried, wrong
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest tests/faults/test_kills.py & kills=$$!; \
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest tests/faults/test_mutations.py tests/faults/test_disks.py || failed=1; \
	wait $$kills && test -z "$${failed:-}"

# Starts a Slurm of two nodes on this machine and stops it; says what is not installed where it cannot.
test-slurm: | $(INSTALLED) ## a competition through a real Slurm, whatever happens to its jobs (apt: slurm-wlm munge)
	$(PYTHON) -m pytest -rs tests/schedule

test-gpu: | $(INSTALLED) ## the tests that need a GPU
	$(PYTHON) -m pytest -m gpu

lint: | $(INSTALLED) ## ruff: the rules, and the form of every file
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

bench: | $(INSTALLED) ## every benchmark, as ratios against what one would otherwise use
	@for file in tests/bench/bench_*.py; do $(PYTHON) -m tests.bench.$$(basename $$file .py); done

paper: | $(INSTALLED) ## the paper's tables and figures that the data there allow; ARGS="--epochs 10 --seeds 1" on a CPU
	$(PYTHON) -m pipeline.paper.everything $(ARGS)

proof: | $(INSTALLED) ## does stage 2 help? one protocol over five sets of real images; ARGS="--sets chexpert --size 96"
	$(PYTHON) -m pipeline.paper.proof $(ARGS)

clean: ## delete the demo's artifacts and caches (never your data or models)
	rm -rf data/demo models/demo submissions/demo .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
