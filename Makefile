# Everything a newcomer or a CI system calls. `make` alone lists it.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help venv lint sanity unit integration molecule test demo demo-down testbed bench-ownership bench-config bench-edge bench-status bench-backup scan-edge build clean

ready := .venv/stamp
as_root := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=PATH)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(ready) ## a disposable Dify server on this machine, over SSH, by the unchanged site.yml (DIFY_VERSION=1.12.1)
	.venv/bin/python tests/testbed/demo.py up $(if $(DIFY_VERSION),--dify-version $(DIFY_VERSION))

demo-down: $(ready) ## remove that server
	.venv/bin/python tests/testbed/demo.py down

test: $(ready) ## every part below down to molecule; ends with the seconds of each
	@tests/gates/test.sh

lint: $(ready) ## ansible-lint, yamllint, ruff, mypy, changelog and documentation
	@tests/gates/lint.sh

unit: $(ready) ## pytest over plugins, role data and templates (as root, since some tests give files away)
	@tests/gates/compose.sh
	@tests/gates/restic.sh
	$(as_root) env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=.cache/hypothesis .venv/bin/python -m pytest -p no:cacheprovider tests/unit

sanity: $(ready) ## ansible-test sanity with every supported Python found here
	@tests/gates/sanity.sh

integration: $(ready) ## ansible-test integration on this machine (TARGET=dotenv for one)
	@tests/gates/integration.sh $(TARGET)

molecule: $(ready) ## Molecule scenarios on real hosts (SCENARIO=default for one)
	@tests/gates/molecule.sh $(SCENARIO)

testbed: ## engine, network, registry, git and ACME servers that scenarios and the demonstration use
	python3 tests/testbed/testbed.py up

bench-ownership: $(ready) ## measure volume_ownership against its alternatives
	.venv/bin/python tests/bench/bench_ownership.py

bench-config: $(ready) ## measure the environment file and what configuring a converged host takes (INVENTORY=… for the latter)
	.venv/bin/python tests/bench/bench_config.py $(if $(INVENTORY),--inventory $(INVENTORY))

bench-status: $(ready) ## measure what looking at servers takes (INVENTORY=… of hosts on which site.yml has run)
	.venv/bin/python tests/bench/bench_status.py --inventory $(INVENTORY)

bench-edge: $(ready) ## measure what the edge costs, against the service on loopback (on the demonstration server; wants an idle machine)
	.venv/bin/python tests/bench/bench_edge.py $(if $(HOST),--host $(HOST))

bench-backup: $(ready) ## measure backup and restore beside `down` and tar, on the demonstration server, whose data it destroys (SIZE=10G INVENTORY=…; wants an idle machine)
	.venv/bin/python tests/bench/bench_backup.py --size $(or $(SIZE),10G) $(if $(INVENTORY),--inventory $(INVENTORY))

scan-edge: $(ready) ## the table of docs/tls-scan.md: what a TLS scanner finds at the edge of the demonstration server
	@.venv/bin/python tests/bench/scan_edge.py $(if $(HOST),--host $(HOST))

build: $(ready) ## the collection's tarball, into .cache/build
	.venv/bin/ansible-galaxy collection build --force --output-path .cache/build

venv: $(ready) ## .venv with the pinned tools

$(ready): requirements-dev.txt tests/gates/venv.sh
	PYTHON=$(PYTHON) tests/gates/venv.sh

clean: ## remove .venv, .cache and what tools left behind (make demo-down and testbed.py down first)
	rm -rf .venv .cache .ansible .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/output
