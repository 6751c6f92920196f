"""What people read: words, published numbers, tables, figures, the report."""
