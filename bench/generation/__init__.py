"""Generation beside other libraries and servers, on the same weights and the same cores (`make bench-generation`)."""
