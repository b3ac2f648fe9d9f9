"""The page in the browser: a form, a queue of runs on disk, and what the runs found."""
