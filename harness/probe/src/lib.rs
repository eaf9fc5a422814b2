//! Servers, clients, flows, raw packets and captures inside a network namespace.
