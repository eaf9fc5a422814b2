//! The scenario catalogue, embedded. There is no other code here: the documents are in `catalogue/`, one directory per
//! requirement area, and the requirements they prove in `requirements.yaml`.

/// Every document of the catalogue: path below the repository and text, sorted by path.
pub const CATALOGUE: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// The requirements that scenarios prove.
pub const REQUIREMENTS: &str = include_str!("../requirements.yaml");
