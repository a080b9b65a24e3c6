"""What a model keeps of a long context, and what it reads of that."""
