.PHONY: check types quick test
# where it is set, every process that a test starts compiles torch's sources anew: five seconds each
unexport PYTHONDONTWRITEBYTECODE

# two processes of one thread take half the time of one with two
PYTEST = OMP_NUM_THREADS=1 uv run pytest -n 2 --dist loadfile

check: types  ## what every commit passes: style and types, then the quick tests
	uv run ruff check . && uv run ruff format --check . && $(PYTEST) -m "not slow"

types:
	uv run pyright src

quick:
	$(PYTEST) -m "not slow"

test:
	$(PYTEST)
