# Every task of the project; `make help` lists them. Logic lives in tools/*.py, this file only names it.
SHELL := /bin/sh
.DEFAULT_GOAL := help

# The first Python that is new enough; an old one gets a sentence, not a traceback.
PYTHON := $(shell for candidate in python3 python3.13 python3.12 python3.11; do \
	"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v "$$candidate"; break; }; done)
VENV := .venv/bin

.PHONY: help
help: ## List the tasks
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "Deskline needs Python 3.11 or newer: install it (Debian, Ubuntu: apt-get install python3 python3-venv) and run make again." >&2; exit 2; }

.PHONY: run
run: python ## Start Deskline on this machine (PORT=8000 GATEWAY_PORT=8080)
	@$(PYTHON) tools/environment.py app
	@$(PYTHON) tools/web_build.py
	@exec $(VENV)/python -m app run $(if $(PORT),--port $(PORT)) $(if $(GATEWAY_PORT),--gateway-port $(GATEWAY_PORT)) $(if $(DATA_DIR),--data-dir $(DATA_DIR))

.PHONY: test
test: python ## Install what the tests need, then run everything (ONLY=lint,unit,… for a part)
	@$(PYTHON) tools/run_tests.py $(if $(ONLY),--only $(ONLY))

.PHONY: lint
lint: python ## Every static check: Python, Ansible, web
	@$(PYTHON) tools/run_tests.py --only lint

.PHONY: bench
bench: python ## Measure the gateway and its peers on loopback, 20 minutes (ONLY=pairs,… PEERS=none,…; see also bench-api)
	@$(PYTHON) tools/environment.py dev
	@$(VENV)/python -m bench.gateway $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers "$(PEERS)") $(if $(OUT),--out $(OUT))

.PHONY: ledger
ledger: python ## Talk to a running Deskline, account for every message (URL=… SECONDS=60 RATE=10)
	@$(PYTHON) tools/environment.py dev
	@$(VENV)/python -m bench.ledger $(if $(URL),--url $(URL)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RATE),--rate $(RATE)) $(if $(VISITORS),--visitors $(VISITORS)) $(if $(AGENTS),--agents $(AGENTS))

.PHONY: chaos
chaos: python ## The ledger on the local cluster while its parts are broken (SECONDS=600 RATE=50)
	@$(PYTHON) tools/environment.py dev
	@DESKLINE_CHAOS_SECONDS=$(or $(SECONDS),600) DESKLINE_CHAOS_RATE=$(or $(RATE),50) DESKLINE_CHAOS_VISITORS=$(or $(VISITORS),300) DESKLINE_CHAOS_AGENTS=$(or $(AGENTS),30) CI=true $(VENV)/python -m pytest tests/chaos -s

.PHONY: bench-many
bench-many: python ## Hold 40,000 sockets through the deployed Nginx for ten minutes (SOCKETS=… SECONDS=600 OUT=…)
	@$(PYTHON) tools/environment.py dev
	@$(VENV)/python -m bench.gateway.through_nginx $(if $(SOCKETS),--sockets $(SOCKETS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(OUT),--out $(OUT))

.PHONY: bench-outages
bench-outages: python ## The ledger while Redis restarts, a gateway is killed, one drained (SECONDS=75 OUT=…)
	@$(PYTHON) tools/environment.py dev
	@$(VENV)/python -m bench.gateway.outages $(if $(SECONDS),--seconds $(SECONDS)) $(if $(OUT),--out $(OUT))

.PHONY: bench-api
bench-api: python ## Measure the API on a private MySQL (root the first time); figures go to bench/results/
	@$(PYTHON) tools/environment.py dev
	@$(VENV)/python bench/api.py

.PHONY: fuzz
fuzz: python ## Fuzz what reads bytes of strangers, with two engines at once (SECONDS=600)
	@$(PYTHON) tools/environment.py dev
	@$(VENV)/python tools/fuzz.py $(or $(SECONDS),600)

.PHONY: release
release: python ## Build dist/deskline-<version>.tar.gz, the archive that the servers get
	@$(PYTHON) tools/environment.py deploy
	@$(PYTHON) tools/web_build.py
	@$(VENV)/python tools/build_release.py

.PHONY: up
up: release ## Make the local cluster (LXC, needs root) and deploy Deskline on it
	@$(PYTHON) tools/system_packages.py cluster
	@$(VENV)/ansible-playbook -i inventories/local playbooks/local_up.yml
	@$(VENV)/ansible-playbook -i inventories/local site.yml

.PHONY: down
down: python ## Remove every trace of the local cluster
	@$(PYTHON) tools/environment.py deploy
	@$(VENV)/ansible-playbook -i inventories/local playbooks/local_down.yml -e local_machines_remove_all=true

.PHONY: lock
lock: python ## Lock the dependencies of pyproject.toml again, with hashes
	@$(PYTHON) tools/environment.py dev
	@$(VENV)/python tools/lock.py

.PHONY: clean
clean: ## Remove what make made in this folder (not the data of `make run`)
	rm -rf .venv .cache dist test-results web/node_modules web/dist
