# Everything runs in .venv, which the first target that needs it builds from requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN := TF_CPP_MIN_LOG_LEVEL=2
WORKERS ?= 2
TEST = $(RUN) .venv/bin/python -m pytest -q -n $(WORKERS) --dist=worksteal
INSTALLED := .venv/.installed
ROOMS := $(addprefix tests/,baselines envs heads models ops rollouts saving training)
PEERS := benchmarks/.venv
PUREJAXRL := benchmarks/.venv-purejaxrl
RLLIB := benchmarks/.venv-rllib

.DEFAULT_GOAL := help
.PHONY: help demo test slow lint lock bench-peers bench-purejaxrl bench-rllib clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 26

demo: $(INSTALLED)  ## train PPO on CartPole-v1, evaluate 100 episodes, export (about a minute)
	.venv/bin/kerasrl-pg train --agent=ppo --env=CartPole-v1 --total_steps=100000 \
	    --episodes=100 --out=runs/cartpole --overwrite

# In three runs, since what XLA has compiled stays with its process: 30 MB for each agent.
test: $(INSTALLED)  ## the tests, without the slow ones
	@status=0; for part in tests/agents "$(ROOMS)" "tests $(patsubst %,--ignore=%,tests/agents $(ROOMS))"; do \
	    $(TEST) $$part || status=$$?; \
	done; exit $$status

slow: $(INSTALLED)  ## the tests that train, and the rest of each matrix
	$(TEST) -m slow

lint: $(INSTALLED)  ## ruff
	.venv/bin/ruff check .

# uv overlooks upper bounds of Requires-Python: backports-strenum 1.3 will not install on 3.11.
lock: $(INSTALLED)  ## write requirements.lock anew, from what setup.py asks for
	.venv/bin/python -m pip install -q uv
	echo "backports-strenum<1.3" | .venv/bin/uv pip compile setup.py --extra all --upgrade \
	    --python-version 3.11 --constraint /dev/stdin --no-annotate --no-header \
	    --no-emit-find-links --no-emit-index-url -q --output-file requirements.lock

bench-peers: $(PEERS)/.installed  ## the peers' own environment, for the benchmarks beside them

bench-purejaxrl: $(PUREJAXRL)/.installed  ## PureJaxRL's, of its own versions, for benchmarks/compiled.py

bench-rllib: $(RLLIB)/.installed  ## RLlib's, for benchmarks/workers.py

clean:  ## remove what was built, keep both environments
	rm -rf build dist runs *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "*/.venv/*" -prune -exec rm -rf {} +

# setuptools and wheel are in the lock file, so that building the package downloads nothing more.
$(INSTALLED): requirements.lock setup.py
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q -r requirements.lock
	.venv/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	touch $@

$(PEERS)/.installed: benchmarks/requirements-peers.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q -r $<
	touch $@

$(PUREJAXRL)/.installed: benchmarks/requirements-purejaxrl.txt
	test -x $(PUREJAXRL)/bin/python || $(PYTHON) -m venv $(PUREJAXRL)
	$(PUREJAXRL)/bin/python -m pip install -q -r $<
	touch $@

$(RLLIB)/.installed: benchmarks/requirements-rllib.txt
	test -x $(RLLIB)/bin/python || $(PYTHON) -m venv $(RLLIB)
	$(RLLIB)/bin/python -m pip install -q -r $<
	touch $@
