"""What should be done, as functions of values: no clock, no client, no log; reasons are returned. Pure."""
