# `make demo` and `make test` do everything on a fresh machine that has a Python of 3.12 or newer.

VENV := .venv
BIN := $(VENV)/bin
DATA := .resolution-ledger/demo
PACKAGES := domain ledger projections consumers config dashboard app resolution_ledger
COMPILE = $(BIN)/uv pip compile --generate-hashes --universal --python-version 3.12 \
  --no-emit-index-url --no-emit-find-links --no-header --quiet

.PHONY: setup demo run test test-fast test-long test-orders mutants wheel-check lint types types-here types-win32 types-darwin types-page fuzz faults bench bench-quick bench-rivals bench-rivals-quick bench-compare bench-guard bench-detection bench-http bench-import bench-databases bench-views bench-rebuilds bench-following bench-failover bench-reference wheels size docs picture check requirements help

# Without bytecode every process compiles the whole program when it starts: half of a second each.
unexport PYTHONDONTWRITEBYTECODE

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

PAGE := dashboard/web/built/manifest.json

setup: $(VENV)/.current $(PAGE)  ## make .venv/ with everything, and the page; nothing to do when both are current

$(VENV)/.current: requirements.txt pyproject.toml
	@python=$$(./find-python) && echo "setting up $(VENV) with $$python" && \
	{ test -x $(BIN)/python && $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  "$$python" -m venv --clear $(VENV); }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(PAGE): hatch_build.py $(shell find dashboard/web -type f -not -path '*/node_modules/*' -not -path '*/built*/*' -not -name api.d.ts) | $(VENV)/.current
	@$(BIN)/python hatch_build.py && touch $@

demo: setup  ## the main job: an organisation's ninety days, a manager's summary, and the page (where somebody watches)
	@if test -t 1; then $(BIN)/resolution-ledger demo --data-dir $(DATA); \
	else $(BIN)/resolution-ledger demo --data-dir $(DATA) --no-serve; fi

run: setup  ## run everything here until Ctrl-C
	@$(BIN)/resolution-ledger up

test: setup  ## all tests; more than half an hour
	@$(BIN)/python -m pytest

test-fast: setup  ## tests without servers or processes, with few random examples; seconds
	@$(BIN)/python -m pytest -m "not integration and not long" --hypothesis-profile fast

test-long: setup  ## all tests with every example; crashes, random commands, HTTP operations, hostile bytes for hours; MINUTES=60 of fuzz
	@$(MAKE) types
	@LONG_TESTS=1 $(BIN)/python -m pytest --hypothesis-profile long --timeout 7200
	@CRASH_ROUNDS=55 $(BIN)/python -m pytest -n0 --timeout 7200 tests/system/test_crash.py
	@MACHINE_EXAMPLES=60 $(BIN)/python -m pytest -n0 --timeout 7200 tests/decisions/test_stateful.py
	@WEBHOOKS=10000 $(BIN)/python -m pytest -n0 --timeout 7200 tests/system/test_webhooks.py
	@$(MAKE) test-orders
	@SCHEMATHESIS_EXAMPLES=50 $(BIN)/python -m pytest -n0 --timeout 7200 tests/dashboard/test_openapi.py
	@$(MAKE) fuzz

test-orders: setup  ## facts in any order: 500 histories for each view and report, and real data reversed and shuffled; EXAMPLES=n
	@VIEW_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/python -m pytest -n0 --timeout 7200 --durations=0 \
	  tests/projections/test_entities.py tests/reports/test_any_order.py

mutants: setup  ## change each comparison and constant of the reports, and count what the oracles notice; some 10 minutes, resumes
	@$(BIN)/python -W ignore -m benchmarks.mutants

wheel-check: setup  ## the wheel and the README's commands in an empty environment, with dependencies as a user's pip finds them
	@WHEEL_WITH_DEPENDENCIES=1 $(BIN)/python -m pytest -n0 tests/system/test_package.py

lint: setup  ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup  ## mypy, strict; the product as other systems see it, too
	@$(MAKE) --no-print-directory --jobs 2 types-here types-win32 types-darwin types-page

types-here:
	@$(BIN)/mypy

types-win32 types-darwin: types-%:
	@$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$* --no-warn-unreachable $(PACKAGES)

types-page:
	@$(BIN)/python -m tests.support.page_types

fuzz: setup  ## hostile bytes by all three doors of a running ledger; MINUTES=60, SEED=n
	@$(BIN)/python -m tests.support.fuzzer --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

faults: setup  ## kill, suspend, cut and fill real processes under load, then check everything; SCHEDULES=200, SEED=n, UPGRADE=--upgrade
	@$(BIN)/python -W ignore -m tests.support.faults --schedules $(or $(SCHEDULES),200) $(if $(SEED),--seed $(SEED)) $(UPGRADE)

bench: setup  ## this checkout and a commit (BASE=...; by default that of benchmarks/baseline.txt) by turns: rates, CPU an operation
	@$(BIN)/python -m benchmarks.comparison $(if $(BASE),--base $(BASE))

bench-quick: setup  ## the same with a tenth of the operations
	@$(BIN)/python -m benchmarks.comparison --quick $(if $(BASE),--base $(BASE))

bench-rivals: setup rivals  ## figures beside their rivals, some minutes; kept in .benchmarks/
	@$(BIN)/python -m benchmarks

bench-rivals-quick: setup rivals  ## the same with a tenth of the events
	@$(BIN)/python -m benchmarks --quick

.PHONY: rivals
rivals:
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-rivals.txt || \
	  echo "UmaDB has no wheel for this system: it is left out"

bench-compare: setup  ## the kept results beside rivals over time
	@$(BIN)/python -m benchmarks.compare

bench-guard: setup  ## how well the guard detects, by rule, on seeds nothing was tuned on
	@$(BIN)/python -m benchmarks.guard

bench-detection: setup  ## precision, recall and honest people named, on organisations with habits; REPORT=--report: the reporting worlds
	@$(BIN)/python -m benchmarks.detection $(REPORT)

bench-http: setup  ## events and decisions over HTTP beside NATS; decisions over NATS under a flood over HTTP
	@$(BIN)/python -m benchmarks.http_upstreams

bench-import: setup  ## imports beside the version before mappings were SQL, by turns, and memory at ten million rows; SCALE=0.1
	@$(BIN)/python -m benchmarks.imports --scale $(or $(SCALE),1)

bench-databases: setup  ## views in PostgreSQL beside SQLite, by turns: events a second, and the times of reads; minutes
	@$(BIN)/python -W ignore -m benchmarks.databases

bench-views: setup  ## CPU an event of each view beside a commit (BASE=...), and of facts in reversed order; some 20 minutes
	@$(BIN)/python -m benchmarks.views $(if $(BASE),--base $(BASE))

bench-rebuilds: setup  ## views rebuilt from the archive beside the log; minutes; EVENTS=1000000
	@$(BIN)/python -m benchmarks.rebuilds --alone $(if $(EVENTS),--events $(EVENTS))

bench-following: setup  ## how far views are behind at 2,000 events a second
	@$(BIN)/python -m benchmarks.following

bench-failover: setup  ## three servers, SIGKILL of the leader 20 times under load: seconds without answers; minutes
	@$(BIN)/python -m benchmarks.failover

bench-reference: setup  ## make the last whole run beside rivals the one that docs/understand/performance.md shows
	@$(BIN)/python -m benchmarks.reference

wheels: setup  ## whether every dependency has wheels for every supported system; some minutes
	@$(BIN)/python -m tests.support.wheels_of_dependencies

size: setup  ## how large an installation without extras is, by package (EXTRA=archive: with one)
	@$(BIN)/python -m tests.support.installed_size $(if $(EXTRA),--extra $(EXTRA))

docs: setup  ## write docs/reference/, the rules in docs/understand/policy.md and the answers in docs/integrate/ anew
	@$(BIN)/python -m tests.support.command_reference
	@$(BIN)/resolution-ledger admin asyncapi > docs/reference/asyncapi.json
	@$(BIN)/resolution-ledger admin schema > docs/reference/sql.md
	@$(BIN)/python -m tests.support.policy_reference
	@$(BIN)/python -m tests.support.document_pages

picture: setup  ## take docs/pictures anew: four people's first pages with the demo's data, by a Chromium
	@$(BIN)/python -m tests.support.screenshot

check: lint types test  ## what CI checks

requirements: setup  ## pin dependencies anew, with hashes: of everything, of the image, of what builds the wheel, of rivals
	@$(BIN)/python -m pip install --quiet uv
	@$(COMPILE) pyproject.toml --extra archive --extra import --extra mcp --extra oidc --extra otel --extra postgres --group dev -o requirements.txt
	@$(COMPILE) pyproject.toml --extra archive --extra import --extra mcp --extra oidc --extra otel --extra postgres --constraint requirements.txt -o requirements-image.txt
	@$(COMPILE) --group build --constraint requirements.txt -o requirements-build.txt
	@$(COMPILE) --group rivals -o requirements-rivals.txt
