"""Claims of the family `retrieve`."""
