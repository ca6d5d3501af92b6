"""The browser's side: a page, who gets it, and how it asks the observed processes."""
