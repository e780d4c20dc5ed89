PYTHON := .venv/bin/python
ARGS ?=

.PHONY: help demo test lint docs docs-links docs-made docs-screenshots \
        bench-ablation bench-accuracy bench-batch bench-calibrate bench-exam bench-faults bench-fuzz bench-geometry bench-speed \
        bench-training growth \
        release-check setup system clean

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-16s %s\n", $$1, $$2 }'

demo: setup ## Open the demonstration (without a screen: write its results to files).
	.venv/bin/oneseg demo $(ARGS)

test: setup .venv/.installed-kernels .venv/.installed-docs ## Run all tests on a virtual screen; ARGS goes to pytest.
	scripts/with-screen.sh $(PYTHON) -m pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile $(ARGS)

lint: setup ## Check style and types.
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

docs: setup .venv/.installed-docs ## Build the documentation into site/.
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

docs-links: setup ## Try all addresses outside that the documentation names; needs the network.
	$(PYTHON) scripts/docs_links.py

docs-made: setup ## Renew the measured tables of README.md and the pictures of "How it works".
	$(PYTHON) scripts/docs_hooks.py README.md
	$(PYTHON) scripts/docs_pictures.py

docs-screenshots: setup ## Photograph the tutorial anew: the end-to-end test uses the real program and takes the pictures.
	ONESEG_E2E_PICTURES=build $(PYTHON) -m pytest tests/e2e/test_tour.py -k phantom
	for step in 1-open 2-painted 3-propagated 4-review 5-correction; do \
		cp build/pictures/phantom-$$step.png docs/images/tutorial-$$step.png; \
	done
	cp build/pictures/phantom-7-exported.png docs/images/tutorial-6-export.png

bench-ablation: setup ## Measure what each part of self-learning contributes; ARGS goes to the program.
	$(PYTHON) benchmarks/ablation.py $(ARGS)

bench-accuracy: setup ## Measure accuracy on real scans; ARGS goes to the program.
	$(PYTHON) benchmarks/accuracy.py $(ARGS)

bench-exam: setup ## Label generated scans from one painted slice, and tell what goes wrong; ARGS goes to the program.
	$(PYTHON) benchmarks/exam.py $(ARGS)

bench-calibrate: setup ## Fit the expected Dice of slices to what bench-exam has written; ARGS goes to the program.
	$(PYTHON) benchmarks/calibrate.py $(ARGS)

bench-faults: setup ## Kill the program at random moments, and see what is left; ARGS goes to the program.
	$(PYTHON) benchmarks/faults.py $(ARGS)

bench-batch: setup ## Measure how much faster two workers are than one on a study; ARGS goes to the program.
	$(PYTHON) benchmarks/batch.py $(ARGS)

bench-fuzz: setup ## Give the readers damaged and hostile files; ARGS goes to the program.
	$(PYTHON) benchmarks/fuzz.py $(ARGS)

bench-geometry: setup ## See whether labels land where they were painted; ARGS goes to the program.
	$(PYTHON) benchmarks/geometry.py $(ARGS)

bench-speed: setup ## Measure speed and memory; ARGS goes to the program.
	$(PYTHON) benchmarks/speed.py $(ARGS)

release-check: setup ## Build wheel and sdist of what is committed, and try them in an empty environment.
	scripts/release-check.sh

bench-training: setup ## Measure training: several processes, loading, memory; ARGS goes to the program.
	$(PYTHON) benchmarks/training.py $(ARGS)

growth: setup ## Print what many scans cost, from what was measured; ARGS goes to the program.
	$(PYTHON) benchmarks/growth.py $(ARGS)

setup: system .venv/.installed ## Install what is missing: system packages, .venv.

system:
	@scripts/setup.sh system

# The stamps lie in .venv, so that they go when it goes.
.venv/.installed: pyproject.toml constraints.txt scripts/setup.sh | system
	scripts/setup.sh venv

.venv/.installed-docs: .venv/.installed
	scripts/setup.sh docs

.venv/.installed-kernels: .venv/.installed
	scripts/setup.sh kernels

clean: ## Remove .venv, caches and built files.
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis oneseg-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
