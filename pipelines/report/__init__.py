"""One self-contained HTML file that a person reads: headline figures, tables, plots. Knows no workloads."""
