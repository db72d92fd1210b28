"""Rankings: where they come from, how far raters agree, and the pairs that follow from them."""
