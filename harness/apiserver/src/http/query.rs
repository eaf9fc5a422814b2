//! The parameters of a request: its query and its `Accept` header.

use std::collections::HashMap;

use http::{HeaderMap, Uri, header};

use crate::error::StatusError;
use crate::selector::Selector;
use crate::write::WriteOptions;

/// The query parameters.
#[derive(Debug, Default)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    pub(crate) fn of(uri: &Uri) -> Result<Self, StatusError> {
        let query = axum::extract::Query::<HashMap<String, String>>::try_from_uri(uri);
        query
            .map(|q| Query(q.0))
            .map_err(|e| StatusError::bad_request(format!("failed to read the query: {e}")))
    }

    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        matches!(self.text(key), "true" | "1" | "t" | "T" | "TRUE" | "True")
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, StatusError> {
        match self.text(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| StatusError::bad_request(format!("invalid {key}: {text:?}"))),
        }
    }

    /// `resourceVersion`: none when absent, 0 for "any".
    pub(crate) fn resource_version(&self) -> Result<Option<u64>, StatusError> {
        self.number("resourceVersion").map_err(|_| {
            StatusError::bad_request(format!(
                "Invalid value: {:?}: resourceVersion",
                self.text("resourceVersion")
            ))
        })
    }

    pub(super) fn selector(&self) -> Result<Selector, StatusError> {
        Selector::parse(self.text("labelSelector"), self.text("fieldSelector"))
    }

    /// What a write says about itself. The manager defaults to the first part of the user agent, as in Kubernetes.
    pub(super) fn write_options(&self, agent: &str, apply: bool) -> WriteOptions {
        let named = self.text("fieldManager");
        // Server-side apply insists on a name, so there is no default for it.
        let manager = if named.is_empty() && !apply {
            agent.split('/').next().unwrap_or_default()
        } else {
            named
        };
        WriteOptions {
            dry_run: self.text("dryRun") == "All",
            manager: manager.to_owned(),
            force: self.flag("force"),
        }
    }
}

/// The form a client wants objects in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The objects themselves.
    Plain,
    /// Rows and columns, for people (`as=Table`).
    Table,
    /// Only the metadata (`as=PartialObjectMetadata`).
    Metadata,
    /// All resources in one document (`as=APIGroupDiscoveryList`).
    AggregatedDiscovery,
}

/// The first form in the `Accept` header that is spoken here. JSON is the answer to everything else, protobuf included: clients that prefer
/// protobuf take JSON as well.
pub(super) fn accepted_form(headers: &HeaderMap) -> Form {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(
            parts.next(),
            Some("application/json" | "*/*" | "application/*")
        ) {
            continue;
        }
        let parameters: HashMap<&str, &str> = parts.filter_map(|p| p.split_once('=')).collect();
        match (parameters.get("as").copied(), parameters.get("v").copied()) {
            (None, _) => return Form::Plain,
            (Some("Table"), _) => return Form::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), _) => {
                return Form::Metadata;
            }
            (Some("APIGroupDiscoveryList"), Some("v2")) => return Form::AggregatedDiscovery,
            (Some(_), _) => {}
        }
    }
    Form::Plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_of_real_clients() {
        let table = [
            ("", Form::Plain),
            ("*/*", Form::Plain),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Form::Plain,
            ),
            ("application/vnd.kubernetes.protobuf", Form::Plain),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Form::Table,
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Form::Metadata,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Form::AggregatedDiscovery,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
                Form::Plain,
            ),
        ];
        for (accept, form) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(accepted_form(&headers), form, "{accept}");
        }
    }
}
