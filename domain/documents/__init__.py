"""The documents that other systems read: answers to requests, and rows of lists."""
