.PHONY: check quick test

check:  ## what every commit passes: style, then the quick tests
	uv run ruff check . && uv run ruff format --check . && uv run pytest -m "not slow"

quick:
	uv run pytest -m "not slow"

test:
	uv run pytest
