"""Whole collections: every picture of a folder, a list, tar shards or films → label maps, overlays, COCO, YOLO or a
table; resumable.

command → what a person asked · inputs, tars, films → which pictures there are · job → through the model and onto the
disk, in processes or on_ray · formats, polygons → files of a picture · journal → what is finished, and what it was made
of · collected → files of all · disk → files appear whole or not at all.
"""
