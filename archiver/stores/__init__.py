"""Where bytes go: one narrow protocol over memory, a directory and S3-compatible object storage."""
