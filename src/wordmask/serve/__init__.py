"""A page and an API that segment pictures by words, on this machine.

command → from the command line to a server · server → start and graceful stop · application → the routes · guard →
what surrounds them · limits → who may come in · reading, question → what a request asks · service → who answers it ·
worker → the one thread that owns the models · answer → what goes back · metrics → what is counted.
"""
