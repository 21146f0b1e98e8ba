"""What must be beaten: methods without anything to learn across series."""
