"""What more than one backend needs: bounds, terms of a scan, layouts of postings."""
