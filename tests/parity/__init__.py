"""The same models declared in ppcore and written directly in NumPyro."""
