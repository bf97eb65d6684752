"""Claims, each run at full and at smoke size; each writes one JSON file and the Markdown table made from it."""
