"""The labelling page: raters rank, admins watch and close."""
