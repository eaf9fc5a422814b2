//! What a Kubernetes service proxy must do, as a pure function.
