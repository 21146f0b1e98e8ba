"""What a training cycle is made of: each step takes values and returns values. No IO, no clock, no log."""
