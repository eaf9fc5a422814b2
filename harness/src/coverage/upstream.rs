//! `scenarios/upstream.yaml`: the end-to-end specs of SIG Network and what becomes of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{
    names::{SpecNames, is_spec},
    table::{Row, Standing, Table, covers_line, exists},
};
use crate::{
    plan::Catalogue,
    scenario::{Problem, load},
};

/// The file.
#[derive(Clone, Debug)]
pub struct Upstream {
    file: Arc<str>,
    data: Data,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Data {
    kubernetes: String,
    specs: Vec<Spanned<String>>,
    accounts: Vec<Spanned<Account>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Account {
    #[serde(default)]
    covered: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    provider: Option<Provider>,
    #[serde(default)]
    out_of_scope: Option<OutOfScope>,
    #[serde(default)]
    open: Option<String>,
    #[serde(default)]
    note: Option<String>,
    specs: Vec<Spanned<String>>,
}

/// Providers that can show what the namespaces of one machine cannot.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Provider {
    Kind,
}

/// Why something is not decided by a Service proxy: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum OutOfScope {
    /// Network policies.
    #[serde(rename = "network policy")]
    NetworkPolicy,
    /// What a DNS server answers.
    #[serde(rename = "DNS server")]
    DnsServer,
    /// The Ingress API.
    #[serde(rename = "ingress API")]
    IngressApi,
    /// The API server and its controllers; no packet is sent.
    #[serde(rename = "API-server-only")]
    ApiServerOnly,
    /// The pod network.
    #[serde(rename = "CNI")]
    Cni,
    /// The cloud controller and the load balancer itself.
    #[serde(rename = "cloud provider")]
    CloudProvider,
    /// The kubelet.
    #[serde(rename = "kubelet")]
    Kubelet,
}

impl OutOfScope {
    /// As the file spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NetworkPolicy => "network policy",
            Self::DnsServer => "DNS server",
            Self::IngressApi => "ingress API",
            Self::ApiServerOnly => "API-server-only",
            Self::Cni => "CNI",
            Self::CloudProvider => "cloud provider",
            Self::Kubelet => "kubelet",
        }
    }
}

impl Upstream {
    /// Reads the file.
    ///
    /// # Errors
    /// The place that cannot be understood, or an account that does not decide.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let file: Arc<str> = file.into();
        let data: Data = load::parse(&file, text)?;
        for account in &data.accounts {
            let Account {
                covered,
                provider,
                out_of_scope,
                open,
                ..
            } = &account.value;
            let decided = usize::from(covered.is_some())
                + usize::from(provider.is_some())
                + usize::from(out_of_scope.is_some())
                + usize::from(open.is_some());
            if decided != 1 {
                return Err(Problem {
                    file,
                    line: account.referenced.line(),
                    message: format!(
                        "an account has exactly one of covered, provider, outOfScope and open, not {decided}"
                    ),
                });
            }
        }
        Ok(Self { file, data })
    }

    /// The names of all specs.
    pub fn names(&self) -> SpecNames {
        SpecNames::new(self.data.specs.iter().map(|name| name.value.as_str()))
    }

    /// Compares the accounts with the catalogue.
    pub fn table(&self, catalogue: &Catalogue) -> Table {
        let mut gaps = Vec::new();
        let mut gap = |line: u64, message: String| {
            gaps.push(Problem {
                file: self.file.clone(),
                line,
                message,
            });
        };
        let mut lines: BTreeMap<&str, u64> = BTreeMap::new();
        for spec in &self.data.specs {
            if lines.insert(&spec.value, spec.referenced.line()).is_some() {
                gap(
                    spec.referenced.line(),
                    format!("the spec '{}' is listed twice", spec.value),
                );
            }
        }
        let mut accounts: BTreeMap<&str, &Account> = BTreeMap::new();
        for account in &self.data.accounts {
            for id in account.value.covered.iter().flatten() {
                if !exists(catalogue, &id.value) {
                    gap(
                        id.referenced.line(),
                        format!("'{}' is no scenario", id.value),
                    );
                }
            }
            for spec in &account.value.specs {
                let line = spec.referenced.line();
                if !lines.contains_key(spec.value.as_str()) {
                    gap(line, format!("'{}' is not among the specs", spec.value));
                } else if accounts.insert(&spec.value, &account.value).is_some() {
                    gap(line, format!("'{}' has two accounts", spec.value));
                }
            }
        }
        let claimed = self.claims(catalogue, &mut gaps);
        let none = BTreeSet::new();
        let mut rows = Vec::new();
        for spec in &self.data.specs {
            let name = spec.value.as_str();
            let claims = claimed.get(name).unwrap_or(&none);
            let (row, problem) = row(name, accounts.get(name).copied(), claims);
            if let Some(message) = problem {
                gaps.push(Problem {
                    file: self.file.clone(),
                    line: spec.referenced.line(),
                    message,
                });
            }
            rows.push(row);
        }
        Table {
            name: "upstream",
            of: format!(
                "end-to-end specs of SIG Network in Kubernetes {}",
                self.data.kubernetes
            ),
            rows,
            gaps,
        }
    }

    /// What the documents say in `covers`: spec -> scenarios.
    fn claims(
        &self,
        catalogue: &Catalogue,
        gaps: &mut Vec<Problem>,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let names = self.names();
        let mut claims: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for document in &catalogue.documents {
            for entry in document
                .header
                .covers
                .iter()
                .filter(|entry| is_spec(entry.as_str()))
            {
                match names.complete(entry) {
                    Ok(name) => {
                        claims
                            .entry(name.into())
                            .or_default()
                            .insert(document.header.id.clone());
                    }
                    Err(error) => gaps.push(Problem {
                        file: document.file.clone(),
                        line: covers_line(&document.text, entry),
                        message: format!("covers: {error}"),
                    }),
                }
            }
        }
        claims
    }
}

/// One spec, and what is wrong with it.
fn row(name: &str, account: Option<&Account>, claims: &BTreeSet<String>) -> (Row, Option<String>) {
    let mut scenarios = claims.clone();
    let mut group = None;
    let mut note = account.and_then(|account| account.note.clone());
    let mut problem = None;
    let denied = |why: &str| {
        let claims: Vec<&str> = claims.iter().map(String::as_str).collect();
        (!claims.is_empty()).then(|| {
            format!(
                "'{name}' is {why}, but covered according to {}",
                claims.join(", ")
            )
        })
    };
    let standing = match account {
        None => {
            problem = Some(format!("'{name}' has no account"));
            Standing::Open
        }
        Some(account) => {
            if let Some(covered) = &account.covered {
                scenarios.extend(covered.iter().map(|id| id.value.clone()));
                if scenarios.is_empty() {
                    problem = Some(format!("'{name}' is covered by no scenario"));
                }
                Standing::Covered
            } else if account.provider.is_some() {
                problem = denied("for the provider kind");
                Standing::RealCluster
            } else if let Some(reason) = account.out_of_scope {
                problem = denied("out of scope");
                group = Some(reason.as_str().to_owned());
                Standing::OutOfScope
            } else if claims.is_empty() {
                let why = account.open.clone().unwrap_or_default();
                problem = Some(format!("'{name}' is open: {why}"));
                note = Some(why);
                Standing::Open
            } else {
                // A document has closed it since.
                Standing::Covered
            }
        }
    };
    let row = Row {
        id: name.into(),
        text: String::new(),
        group,
        standing,
        scenarios: scenarios.into_iter().collect(),
        note,
    };
    (row, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::read_documents;

    /// A catalogue of one document.
    fn catalogue(covers: &str) -> Catalogue {
        let text = format!(
            "id: of-the-test\ntitle: T\nrequirement: [SVC-CIP-1]\ncovers:\n  - \"kubernetes/kubernetes#1\"\n  - \"{covers}\"\nsteps: []\n"
        );
        let documents = read_documents("of-the-test.yaml", &text).expect("a document");
        Catalogue {
            documents: documents.into_iter().map(Arc::new).collect(),
        }
    }

    const FILE: &str = "\
kubernetes: v1
specs:
  - \"[sig-network] A should work [Conformance]\"
  - \"[sig-network] B should work\"
  - \"[sig-network] C should work\"
accounts:
  - covered: [of-the-test]
    specs:
      - \"[sig-network] A should work [Conformance]\"
  - outOfScope: CNI
    specs:
      - \"[sig-network] B should work\"
  - open: nobody wrote it
    specs:
      - \"[sig-network] C should work\"
";

    /// What the file lacks, with one text in it replaced by another.
    fn gaps(from: &str, to: &str, covers: &str) -> Vec<String> {
        assert!(FILE.contains(from), "{from}");
        let upstream = Upstream::parse("up.yaml", &FILE.replace(from, to)).expect("a file");
        let table = upstream.table(&catalogue(covers));
        table.gaps.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn everything_is_accounted_for() {
        assert_eq!(
            gaps("open: nobody wrote it", "provider: kind", "A should work"),
            [""; 0]
        );
        assert_eq!(
            gaps("nobody", "nobody", "A should work"),
            ["up.yaml:5: '[sig-network] C should work' is open: nobody wrote it"]
        );
        // A document that says so closes it.
        assert_eq!(
            gaps("nobody", "nobody", "[sig-network] C should work"),
            [""; 0]
        );
    }

    #[test]
    fn gaps_are_found() {
        let kind = "provider: kind";
        let closed = |from: &str, to: &str, covers: &str| {
            let text = FILE.replace("open: nobody wrote it", kind);
            assert!(text.contains(from), "{from}");
            let upstream = Upstream::parse("up.yaml", &text.replace(from, to)).expect("a file");
            let table = upstream.table(&catalogue(covers));
            table
                .gaps
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        for (from, to, covers, want) in [
            (
                "  - \"[sig-network] C should work\"\naccounts",
                "accounts",
                "A should work",
                "up.yaml:14: '[sig-network] C should work' is not among the specs",
            ),
            (
                "      - \"[sig-network] C should work\"\n",
                "      []\n",
                "A should work",
                "up.yaml:5: '[sig-network] C should work' has no account",
            ),
            (
                "      - \"[sig-network] C should work\"\n",
                "      - \"[sig-network] C should work\"\n      - \"[sig-network] B should work\"\n",
                "A should work",
                "up.yaml:16: '[sig-network] B should work' has two accounts",
            ),
            (
                "[of-the-test]",
                "[of-the-test, gone]",
                "A should work",
                "up.yaml:7: 'gone' is no scenario",
            ),
            (
                "CNI",
                "CNI",
                "D should work",
                "of-the-test.yaml:6: covers: 'D should work' is no spec of scenarios/upstream.yaml",
            ),
            (
                "CNI",
                "CNI",
                "B should work",
                "up.yaml:4: '[sig-network] B should work' is out of scope, but covered according to of-the-test",
            ),
            (
                "CNI",
                "CNI",
                "C should work",
                "up.yaml:5: '[sig-network] C should work' is for the provider kind, but covered according to of-the-test",
            ),
        ] {
            assert_eq!(closed(from, to, covers), [want], "{to}");
        }
    }

    #[test]
    fn broken_files_are_named_with_their_line() {
        for (from, to, line) in [
            ("CNI", "weather", 10),
            (
                "  - outOfScope: CNI",
                "  - outOfScope: CNI\n    open: x",
                10,
            ),
            ("kubernetes: v1", "kubernets: v1", 1),
        ] {
            let problem = Upstream::parse("up.yaml", &FILE.replace(from, to)).expect_err(to);
            assert_eq!(problem.line, line, "{problem}");
            assert_eq!(&*problem.file, "up.yaml");
        }
    }
}
