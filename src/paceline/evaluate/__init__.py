"""How far a model's abilities reach: evaluations with generators and scorers of their own."""
