"""What a person looks at: the progress console, the figures and the one-page report."""
