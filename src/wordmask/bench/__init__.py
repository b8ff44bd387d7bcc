"""How fast a model is, part by part, beside what the machine could do at best.

`timing` takes times, `machine` measures what the machine can do, `counting` what a model asks of it; `model` brings all
three together for one model, `table` shows the result, and `command` is `wordmask bench`.
"""
