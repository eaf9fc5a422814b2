//! What clients and servers say to each other over the network under test: the header in front of every payload.
