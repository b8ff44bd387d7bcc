"""Real data where its users have it, without a conversion step: the published COCO sets, and a person's own folder.

`CocoStuff` and `CocoPanoptic` read what the two papers train on; `open_folder` reads one's own pictures, in any of the
layouts of `layouts.LAYOUTS`. What file names and lists alone tell is checked when a set is opened; `check()` looks into
the files. Pictures and labels are decoded when they are asked for.
"""

from wordmask.data.coco_folder import CocoFolder
from wordmask.data.coco_panoptic import CocoPanoptic
from wordmask.data.label_maps import CocoStuff
from wordmask.data.labelled_folder import LabelledFolder
from wordmask.data.layouts import open_folder

__all__ = ["CocoFolder", "CocoPanoptic", "CocoStuff", "LabelledFolder", "open_folder"]
