"""An explanation as pictures: one sheet for each question."""

from PIL import Image

from wordmask.explain.answer import Explanation
from wordmask.explain.charts import Fonts
from wordmask.explain.class_map_sheets import draw_costs, draw_votes
from wordmask.explain.class_maps import ClassMapExplanation
from wordmask.explain.query_sheets import draw_gates, draw_queries, draw_selection

MOST = 6  # classes or queries that are drawn


def draw(explanation: Explanation, *, most: int = MOST) -> dict[str, Image.Image]:
    """Draw an explanation: the name of each question → its sheet.

    Maps of classes have the questions `votes` and `costs`; masks of queries have `queries`, and EOV-Seg's also
    `selection` and `gates`, if the model has these parts.

    Args:
        most: How many classes or queries are drawn, at least 1.
    """
    fonts = Fonts.that_write([*explanation.names, "…"])
    if isinstance(explanation, ClassMapExplanation):
        return {"votes": draw_votes(explanation, fonts), "costs": draw_costs(explanation, fonts, most=most)}
    sheets = {}
    if explanation.selection is not None:
        sheets["selection"] = draw_selection(explanation, explanation.selection, fonts)
    sheets["queries"] = draw_queries(explanation, fonts, most=most)
    if explanation.gates:
        sheets["gates"] = draw_gates(explanation, fonts, most=most)
    return sheets
