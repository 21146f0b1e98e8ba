"""The usage table: its columns, units and checks, and the same data as aligned arrays. Pure."""
