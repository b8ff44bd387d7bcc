"""How good a model is on labelled pictures: figures beside the published ones.

command → evaluate, the loop over pictures → scoring (metrics, boundaries, average_precision) → store, what a stop
leaves → outcome, figures from counts → report → rendering, as people read it · protocols → how each paper measures.
"""
