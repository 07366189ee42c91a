# Every target sets up .venv by itself, from locked, hashed requirements; only Python 3.11 or later and make are needed.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
	then echo $$python; break; fi; done)
BIN := .venv/bin
ENV := .venv/.ready
DEV := .venv/.ready-dev
SLUICE := $(BIN)/sluice
# The tests, the measurements and `make up` start many processes; without compiled files each would compile every module.
unexport PYTHONDONTWRITEBYTECODE
# A lock is complete, so nothing is resolved: the resolver of pip 23, which Python 3.11 brings, takes a name that is
# locked with an extra and asked for without one for another project, and wants a hash of its newest version.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps

# The newest Prefect that Sluice is tested with, beside the locked one.
PREFECT ?= 3.9.1
OTHER := .venv-prefect-$(PREFECT)
# What depends on how Prefect treats waiting and ending runs.
OF_PREFECT := tests/unit/services/prefect_api tests/integration/test_servers.py \
	tests/integration/signals tests/integration/waits tests/integration/executor tests/integration/delivery/test_path.py \
	tests/integration/deployments tests/integration/flows/test_order_approval.py

.PHONY: up demo test test-prefect browser screenshots coverage check lint types bench soak hosts-test audit image-test image-wheels lock clean
.DEFAULT_GOAL := up

up: $(ENV)
	@exec $(SLUICE) up $(ARGS)

demo: $(ENV)
	@exec $(BIN)/python -m demo $(ARGS)

# Tests wait for servers and processes: two for each of two cores. With three they take longer, as each has its own servers.
WORKERS ?= 4

test: $(DEV) $(OTHER)/.ready
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25 $(ARGS) \
		|| { code=$$?; echo $$code >.pytest_cache/exit_code; exit $$code; }

# Client and server in every mix of the locked version and PREFECT; MIX chooses one of them.
MIX ?= new-server new-client both-new
test-prefect: $(DEV) $(OTHER)/.ready
	@failed=; for mix in $(MIX); do \
		echo "Prefect $(PREFECT): $$mix"; \
		case $$mix in new-client) server=$(BIN)/python;; *) server=$(OTHER)/bin/python;; esac; \
		case $$mix in new-server) client=$(BIN)/python;; *) client=$(OTHER)/bin/python;; esac; \
		TEST_PREFECT_SERVER_PYTHON=$(CURDIR)/$$server $$client -m pytest --numprocesses $(WORKERS) --dist loadfile \
			--no-loadscope-reorder $(OF_PREFECT) $(ARGS) || failed="$$failed $$mix"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# The tests that open a browser are skipped, with that reason, where there is none and this cannot install one.
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || \
		{ command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } || \
		echo "There is no Chromium here, and apt-get does not install it: the tests that open a browser will be skipped."

# Not part of `make check`: measuring makes the tests a fifth slower.
coverage: $(DEV)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered $(ARGS)

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python tools/lint_names.py

types: $(DEV)
	$(BIN)/mypy

check: lint types test

bench: $(DEV) .venv-bench/.ready
	$(BIN)/python -m benchmarks $(ARGS)

# What files are loaded with beside Sluice.
.venv-bench/.ready: requirements/bench.txt | $(BIN)/python
	@$(BIN)/python -m venv .venv-bench
	@.venv-bench/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements/bench.txt
	@touch $@

# The pictures of the documentation, by the test that looks at the same pages.
screenshots: $(DEV)
	TEST_SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/e2e/test_prefect_ui.py $(ARGS)

soak: $(DEV)
	$(BIN)/python -m pytest -m soak --timeout=3600 $(ARGS)

# Needs uv; the lock holds versions and hashes only.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras \
		--extra service --extra flows --extra traces pyproject.toml -o requirements/service.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras \
		--extra service --extra flows --extra traces --group dev -c requirements/service.txt pyproject.toml -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras \
		--group audit -o requirements/audit.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-deps \
		requirements/prefect-$(PREFECT).in -o requirements/prefect-$(PREFECT).txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras \
		--group bench -c requirements/service.txt -o requirements/bench.txt

# Needs root, PostgreSQL and nft (Debian: postgresql nftables). HOSTS_SECONDS is how long hosts and cables fail (45),
# HOSTS_PAUSE how many seconds are between two events (0.25), FAULTS_SEED repeats the faults.
hosts-test: $(DEV)
	$(BIN)/python -m pytest -m soak --timeout=3600 tests/integration/faults/test_hosts.py $(ARGS)

# Licences, a bill of materials (build/sbom.json) and known vulnerabilities of what the service installs.
audit: $(ENV) .venv-audit/.ready
	.venv-audit/bin/python requirements/audit.py

.venv-audit/.ready: requirements/audit.txt | $(BIN)/python
	@$(BIN)/python -m venv .venv-audit
	@.venv-audit/bin/python -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements/audit.txt
	@touch $@

# On demand: root on Debian, 5 GB, and ten minutes the first time. ARGS="--work FOLDER" puts it elsewhere than build/.
image-test: $(DEV)
	$(BIN)/python -m tools.image_test $(ARGS)

# Whether every locked package has a wheel for Linux on ARM: an image can be built there. pip only asks, and installs nothing.
image-wheels: $(ENV)
	$(INSTALL) --dry-run --ignore-installed --only-binary=:all: --platform manylinux_2_28_aarch64 \
		--platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --implementation cp --python-version 3.11 \
		--target build/wheels -r requirements/service.txt && echo "every locked package has a wheel for Linux on ARM"

clean:
	rm -rf .venv .venv-audit .venv-bench .venv-prefect-* build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Sluice needs Python 3.11, 3.12 or 3.13 on the PATH (or make PYTHON=/path/to/python3.11)"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "$(PYTHON) is no Python 3.11, 3.12 or 3.13: name one, as in make PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Creating .venv with $(PYTHON) ..."
	@$(PYTHON) -m venv .venv && $(BIN)/python -m pip --version >/dev/null || \
		{ rm -rf .venv; echo "$(PYTHON) cannot make an environment with pip: install its venv package (apt install python3-venv), or name another: make PYTHON=/path/to/python3.11"; exit 2; }

$(ENV): requirements/service.txt requirements/launcher.py | $(BIN)/python
	@echo "Installing the locked requirements into .venv (about a minute, once) ..."
	@$(INSTALL) -r requirements/service.txt
	@$(BIN)/python -m pip check -q --disable-pip-version-check
	@$(BIN)/python requirements/launcher.py
	@touch $@

$(DEV): requirements/dev.txt $(ENV)
	@echo "Installing the locked development requirements into .venv ..."
	@$(INSTALL) -r requirements/dev.txt
	@$(BIN)/python -m pip check -q --disable-pip-version-check
	@touch $@

# What .venv holds, with another version of Prefect before it.
.venv-prefect-%/.ready: requirements/prefect-%.txt requirements/other_prefect.py $(DEV)
	@$(BIN)/python requirements/other_prefect.py $*
	@touch $@
