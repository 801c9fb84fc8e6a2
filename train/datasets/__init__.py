"""One small converter a data layout: a source folder goes in, records come out."""
