"""What `foresize doctor` looks at, a module an area."""
