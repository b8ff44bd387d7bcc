.PHONY: check quick test
unexport PYTHONDONTWRITEBYTECODE  # where it is set, every process that a test starts compiles torch's sources anew: five seconds each

check:  ## what every commit passes: style, then the quick tests
	uv run ruff check . && uv run ruff format --check . && uv run pytest -m "not slow"

quick:
	uv run pytest -m "not slow"

test:
	uv run pytest
