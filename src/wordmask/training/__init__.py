"""Training: a recipe, and the one loop that runs it.

command.py `wordmask train` → recipe.py its parts: from_clip.py what it begins with, from_labels.py and objectives.py
what it learns and how (set_loss.py the loss of masks), optimiser.py and schedules.py how fast → loop.py the loop:
loading.py examples in, curves.py and checkpoints.py what it leaves, validation.py scores, signals.py how it stops.
finetune.py learns one's own classes, blends.py measures what that costs; tiny_clip/ is where the tiny models' CLIP
comes from.
"""
