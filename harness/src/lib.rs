//! Conformance and regression test harness for Kubernetes service proxies.
