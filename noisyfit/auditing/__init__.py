"""From a file with wrong labels to a cleaned file, with a page to look at."""
