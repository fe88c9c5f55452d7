# Targets for people and for CI. Everything runs in $(VENV), which is made when it is missing.

VENV ?= .venv
PYTHON ?= python3
PYTEST_ARGS ?=
FUZZ_ARGS ?=
SWEEP_ARGS ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PACKS := $(patsubst plugins/%/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
PACKS_INSTALLED := $(PACKS:%=$(VENV)/.installed-pack-%)

.PHONY: example test lint bench conformance fuzz grid versions promises docs transformers zoos clean

example: $(INSTALLED) $(PACKS_INSTALLED)  ## export a torchvision model, check it, and run it against eager torch
	$(BIN)/python docs/example.py

test: $(INSTALLED) $(PACKS_INSTALLED)  ## run the tests
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## ratios against torch.onnx.export
	$(BIN)/python tests/benchmarks/run.py

conformance: $(INSTALLED)  ## torch's operator database through export and onnxruntime
	$(BIN)/python tests/conformance/grid.py

grid: $(INSTALLED)  ## the tests that are left out of `make test`: larger models at every opset, ...
	$(BIN)/python -m pytest -n 2 -m grid $(PYTEST_ARGS)

fuzz: $(INSTALLED)  ## 10,000 random programs against eager torch; prints the shortest form of each that is wrong
	$(BIN)/python -W ignore tests/fuzz/run.py --count 10000 --jobs 2 $(FUZZ_ARGS)

versions:  ## samples of the suites on the newest and the oldest libraries, each set in an environment of its own
	$(PYTHON) tools/versions.py $(VERSIONS_ARGS)

docs: $(INSTALLED)  ## the site, in site/; dead links fail
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

promises: $(INSTALLED)  ## docs/promises.md, from the marks of the tests
	$(BIN)/python tests/api/promises.py

transformers: $(INSTALLED) $(PACKS_INSTALLED)  ## every model type of transformers, and docs/transformers-models.md; goes on where it was stopped
	$(BIN)/python tests/plugins/transformers_pack/transformers_sweep.py --page docs/transformers-models.md $(SWEEP_ARGS)

zoos: $(INSTALLED) $(PACKS_INSTALLED)  ## models of torchvision and timm, and docs/zoo-results.md; goes on where it was stopped
	$(BIN)/onnxport zoo run tests/plugins/zoo/sweep.toml --out build/zoos/run $(SWEEP_ARGS)
	$(BIN)/onnxport zoo page build/zoos/run --output docs/zoo-results.md

clean:
	rm -rf $(VENV) .versions .ci-venv build dist site core/*.egg-info plugins/*/build plugins/*/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml tests/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt --editable '.[test]'
	touch $@

# As a user would: from its own pyproject, a copy of it, without the checkout's help.
.SECONDEXPANSION:
$(VENV)/.installed-pack-%: $(INSTALLED) plugins/%/pyproject.toml $$(shell find plugins/$$* -name '*.py' -not -path '*/build/*')
	rm -rf plugins/$*/build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c tests/constraints.txt \
		--force-reinstall --no-deps --no-build-isolation ./plugins/$*
	touch $@
