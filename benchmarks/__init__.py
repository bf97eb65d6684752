"""One file, one performance question: the floor first, peers in the same run."""
