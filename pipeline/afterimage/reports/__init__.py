"""Reports: what a run found, as one HTML page a subject and one for the group."""
