"""In which order models are made, judged and promoted."""
