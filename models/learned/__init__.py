"""Methods that learn from the whole fleet's past."""
