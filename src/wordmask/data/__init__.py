"""Data: the built-in vocabularies (json, read by `wordmask.vocabulary`), and later the data sets."""
