"""How passages are found for a query: by words, by vectors, by texts that a model imagines."""
