"""`wordmask serve`: from what a person typed to a server that runs."""

from typing import TYPE_CHECKING

from wordmask.serve.limits import Limits
from wordmask.terminal import busy, say

if TYPE_CHECKING:
    from wordmask.hardware import Precision


def serve_models(
    models: list[str] | None,
    limits: Limits,
    *,
    device: str,
    precision: "Precision",
    host: str,
    port: int,
    proxy: str | None,
) -> None:
    """Load models and serve them until told to stop.

    Args:
        models: As `wordmask.load` takes them; the two that come with the package if None.

    Raises:
        ValueError: No such model or device, a package is missing, or the address can't be had.
    """
    with busy("Loading …"):
        from wordmask.demo import MODELS
        from wordmask.serve.server import create_server, load_all, run

        segmenters = load_all(models or list(MODELS), device=device, precision=precision, batch=limits.batch)
    if models is None:
        say(
            f"note: {' and '.join(MODELS)} are small; --model err-seg-base fetches the released weights, once.",
            err=True,
        )
    server = create_server(segmenters, limits, host=host, port=port, proxy=proxy)
    run(server, lambda url: say(f"{url}  (Ctrl-C stops)"))
