//! The scenario catalogue, embedded. There is no other code here: the documents are in `catalogue/`, one directory per
//! requirement area, the requirements they prove in `requirements.yaml`, and what else they stand for in `upstream.yaml` and
//! `bugs.yaml`.

/// Every document of the catalogue: path below the repository and text, sorted by path.
pub const CATALOGUE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// The requirements that scenarios prove.
pub const REQUIREMENTS: &str = include_str!("../requirements.yaml");

/// The end-to-end specs of SIG Network, and where the catalogue stands on each.
pub const UPSTREAM: &str = include_str!("../upstream.yaml");

/// The catalogue of real bugs, and the scenarios in which they would be seen.
pub const BUGS: &str = include_str!("../bugs.yaml");
