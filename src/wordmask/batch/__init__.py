"""Whole collections: every picture of a folder, a list, tar shards or films → label maps, overlays, COCO, YOLO or a
table; resumable."""
