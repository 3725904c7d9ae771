"""The formats of the store's lists: records to lines and names, and back, validated; no I/O inside."""
