"""Data: the built-in vocabularies (json, read by `wordmask.vocabulary`), data sets, and the generated world."""
