//! Worlds made of network namespaces: nodes, pods, an outside client and the wires between them.
