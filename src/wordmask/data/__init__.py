"""Labelled pictures; and the built-in vocabularies, which are json that `wordmask.vocabulary` reads.

labelled → what a data set is · files, frames, outlines, coco_json → reading with errors that help · label_maps,
coco_panoptic → sets to train on, which datasets opens · published → ade20k, cityscapes, pascal, as they are published ·
splits → the table of what scores are measured on · augment → what training shows · shapeland → the generated world.

One's own folders: layouts, the table of what they may look like → labelled_folder, coco_folder, panoptic_folder,
yolo_folder, labelme_folder, on own_folder and outlined; own_places, coco_places and picture_files find the parts,
reading says what a folder doesn't; survey looks at every picture, and class_table tells.
"""
