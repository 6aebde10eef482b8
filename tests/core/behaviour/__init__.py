"""What holds for a job wherever it runs: over our executors and over foreign ones."""
