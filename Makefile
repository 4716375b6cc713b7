# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: venv scan demo test test-compiled compiled-suite lint format schema bench bench-peers faults fuzz soak deb system-test system-tools clean

venv: $(VENV)/ready

$(VENV)/ready: pyproject.toml
	@packaging/prerequisites $(PYTHON) curl
	$(PYTHON) -m venv $(VENV)
	RESTPIPE_COMPILE=0 $(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: venv  ## The main job: both ends of a pipe, four requests, a large file. KEEP=1 leaves it up.
	$(RUN) -m tests.demo $(if $(KEEP),--keep)

# A scanner of TLS that needs an older `cryptography` than RestPipe's newest: it has a venv of its own.
scan: $(VENV)/scan/ready

$(VENV)/scan/ready: $(VENV)/ready
	$(PYTHON) -m venv $(VENV)/scan
	$(VENV)/scan/bin/pip install --quiet --disable-pip-version-check 'sslyze>=6.3,<7'
	@touch $@

test: venv scan  ## All that a plain checkout can test.
	@packaging/prerequisites $(PYTHON) curl openssl nginx certtool
	$(RUN) -m pytest --numprocesses=3 --dist=loadfile $(PYTEST)

# Away from the checkout, whose modules would be imported instead of the compiled ones.
test-compiled: compiled-suite  ## The same on the package as `pip install` compiles it.
	@packaging/prerequisites $(PYTHON) curl openssl nginx certtool
	cd $(VENV)/compiled/suite && TEST_COMPILED=1 ../bin/python -m pytest --numprocesses=3 --dist=loadfile \
		--ignore=tests/unit/test_architecture.py $(PYTEST)

compiled-suite: $(VENV)/compiled/ready
	rm -rf $(VENV)/compiled/suite
	mkdir $(VENV)/compiled/suite
	cp -r README.md docs packaging pyproject.toml setup.py tests $(VENV)/compiled/suite/

$(VENV)/compiled/ready: pyproject.toml setup.py $(shell find restpipe ca -name '*.py')
	@packaging/prerequisites $(PYTHON) cc python3-config
	$(PYTHON) -m venv $(VENV)/compiled
	rm -rf $(VENV)/compiled/source
	mkdir $(VENV)/compiled/source
	cp -r README.md ca pyproject.toml restpipe setup.py $(VENV)/compiled/source/
	RESTPIPE_COMPILE=1 $(VENV)/compiled/bin/pip install --quiet --disable-pip-version-check \
		'$(VENV)/compiled/source[dev]'
	rm -rf $(VENV)/compiled/source
	@touch $@

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: venv
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

schema:  ## Needs the protobuf compiler 3.21, so that the module runs on every runtime since.
	cd restpipe/protocol && protoc --python_out=. --pyi_out=. schema.proto

bench: venv  ## Requests a second, latencies and CPU time; run it alone.
	$(RUN) -m tests.bench

# The name of a package, unless the command is there.
unless = $(if $(shell PATH=$$PATH:/usr/sbin command -v $(1)),,$(2))

bench-peers: compiled-suite $(VENV)/peers/ready  ## Beside ssh -R, NATS and others: ROUNDS=5 SECTIONS="events bulk".
	@packaging/prerequisites $(PYTHON) curl openssl nats-server $(call unless,h2load,nghttp2-client) \
		$(call unless,sshd,openssh-server) $(call unless,ssh,openssh-client)
	cd $(VENV)/compiled/suite && ../bin/python -m tests.bench.peers --peers $(abspath $(VENV)/peers) \
		--rounds $(or $(ROUNDS),5) --seconds $(or $(SECONDS_EACH),3) $(SECTIONS)

# What RestPipe is measured against has a venv of its own: none of it is RestPipe's.
$(VENV)/peers/ready: $(VENV)/ready
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/pip install --quiet --disable-pip-version-check \
		nats-py falcon gunicorn uvicorn uvicorn-worker uvloop httptools protobuf
	@touch $@

faults: venv  ## Links, processes and hosts that fail under load; those in network namespaces need root.
	$(RUN) -m pytest tests/faults $(PYTEST)

fuzz: $(VENV)/fuzz-ready  ## Hostile bytes, guided by coverage: SECONDS=10 each, JOBS=2 at once, TARGETS="wire lists".
	$(RUN) -m tests.fuzz --seconds $(or $(SECONDS),10) --jobs $(or $(JOBS),2) $(TARGETS)

$(VENV)/fuzz-ready: $(VENV)/ready
	$(VENV)/bin/pip install --quiet --disable-pip-version-check 'atheris>=3'
	@touch $@

soak: venv  ## Random faults under load: SECONDS=600 SEED=7. Fails unless nothing is lost, run twice or falsified.
	$(RUN) -m tests.soak --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

deb:  ## The Debian packages, in dist/SUITE. Needs root and mmdebstrap. SUITES="bookworm trixie".
	for suite in $(or $(SUITES),bookworm trixie); do packaging/build-deb $$suite dist/$$suite || exit 1; done

system-test: system-tools venv  ## The packages on booted machines. Needs root.
	$(RUN) -m pytest -p no:cacheprovider tests/system $(PYTEST)

system-tools:
	@[ "$$(id -u)" = 0 ] || { echo "system tests need root: sudo make system-test" >&2; exit 1; }
	@packaging/prerequisites $(PYTHON) cc curl git ip mmdebstrap systemd-nspawn

clean:
	rm -rf $(VENV) build dist *.egg-info
