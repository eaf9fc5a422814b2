//! The API as clients see it: the `kube` crate, `kubectl`, and faults.

mod faults;
mod gateway;
mod kubectl;
mod lists;
mod support;
mod watches;
mod writes;
