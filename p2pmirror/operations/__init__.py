"""Work that people ask for with a command: bringing images into a cache, and seeing to what is in it."""
