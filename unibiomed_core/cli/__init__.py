"""The command line: what is asked, the study it is asked of, and how it is said in a terminal."""
