"""A page and an API that segment pictures by words, on this machine.

limits → who may come in · question → what a request asks · worker → the one thread that owns the models · answer → what
goes back · metrics → what is counted · application → the routes · server → start and graceful stop · command → the
command line's door.
"""
