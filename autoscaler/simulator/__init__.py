"""Replays demand through the decisions and counts violations and savings. Pure: same input, same figures."""
