"""What a model went by: `wordmask.explain.answer.explain` returns it as plain data, `wordmask.explain.sheets.draw` as
pictures."""
