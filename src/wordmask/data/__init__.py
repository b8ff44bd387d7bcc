"""Labelled pictures; and the built-in vocabularies, which are json that `wordmask.vocabulary` reads.

labelled → what a data set is · files, outlines, coco_json → reading with errors that help · label_maps, coco_panoptic,
coco_folder → sets to train on, which datasets opens · published → ade20k, cityscapes, pascal, as they are published ·
splits → the table of what scores are measured on · augment → what training shows · shapeland → the generated world.
"""
