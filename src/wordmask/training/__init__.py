"""A recipe, and the one loop that runs it.

command → recipe: from_clip, what it begins with; from_labels, objectives and set_loss, what it learns; optimiser and
schedules, how fast → loop: loading, signals, validation, curves and checkpoints around it. finetune and blends are for
one's own classes; tiny_clip/ is where the CLIP of the bundled models comes from.
"""
