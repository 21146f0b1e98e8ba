"""What to do about predicted usage, and doing it: decisions are pure, the controller carries them out."""
