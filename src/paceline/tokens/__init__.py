"""How text becomes tokens, and models of tokens seen as models of bytes."""
