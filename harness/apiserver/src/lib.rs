//! An embedded Kubernetes API with fault injection.
