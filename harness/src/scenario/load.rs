//! From YAML text to cases: matrix expansion, substitution, typed reading.
//!
//! Substitution works on the text, before it is read as a document, so that every message carries the line the
//! author wrote. A variable is `$(name)`; see [`variables`] for what there is.

use std::{collections::BTreeMap, fmt, io::Read as _, path::Path, sync::Arc};

use netlab::{plan::Plan, topology as lab};
use serde::Deserialize;

use super::doc::{AxisValue, Scenario, Topology};

/// A problem in a document, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file as the user knows it.
    pub file: Arc<str>,
    /// 1-based line; 0 when the problem is the file as a whole.
    pub line: u64,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for Problem {}

/// A document that was read as far as its list of cases.
#[derive(Clone, Debug)]
pub struct Document {
    /// Path of the file as the user knows it.
    pub file: Arc<str>,
    /// The text.
    pub text: Arc<str>,
    /// What is the same in every case.
    pub header: Header,
    /// The combinations of the matrix, in the order of the document.
    pub cases: Vec<CaseKey>,
}

/// The part of a document that plans and lists need.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// See [`Scenario::id`].
    pub id: String,
    /// See [`Scenario::title`].
    pub title: String,
    /// See [`Scenario::description`].
    #[serde(default)]
    pub description: Option<String>,
    /// See [`Scenario::requirement`].
    pub requirement: Vec<String>,
    /// See [`Scenario::level`].
    #[serde(default)]
    pub level: super::doc::Level,
    /// See [`Scenario::features`].
    #[serde(default)]
    pub features: Vec<super::doc::Feature>,
    /// See [`Scenario::covers`].
    #[serde(default)]
    pub covers: Vec<String>,
    /// See [`Scenario::matrix`].
    #[serde(default)]
    pub matrix: BTreeMap<String, Vec<AxisValue>>,
    #[serde(default)]
    exclude: Vec<BTreeMap<String, AxisValue>>,
    #[serde(default)]
    case: Option<BTreeMap<String, String>>,
    /// See [`Scenario::seed`].
    #[serde(default)]
    pub seed: Option<u64>,
}

/// One combination of a document's matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseKey {
    /// `scenario[value,value]`, values in the alphabetical order of their axes; never changes.
    pub id: String,
    /// Axis -> value.
    pub axes: BTreeMap<String, String>,
}

/// A case, ready to run.
#[derive(Clone, Debug)]
pub struct Case {
    /// Stable id.
    pub key: CaseKey,
    /// Where it came from, for worlds with other addresses.
    pub document: Document,
    /// File it came from.
    pub file: Arc<str>,
    /// The document with everything substituted; running it again runs this very case.
    pub text: String,
    /// The typed document.
    pub scenario: Scenario,
    /// Addresses of the world.
    pub plan: Plan,
    /// Line of the key `objects`; 0 without one.
    pub objects_line: u64,
    /// Line of the key `topology`; 0 without one.
    pub topology_line: u64,
}

impl Case {
    /// Whether the case is about SCTP, so that a machine without it has to skip the case.
    pub fn needs_sctp(&self) -> bool {
        let sctp = |protocol: &String| protocol == "SCTP";
        self.scenario.features.contains(&super::doc::Feature::Sctp)
            || self.key.axes.get("protocol").is_some_and(sctp)
    }
}

/// The largest file that is read, in bytes: a hundred times the largest document of the catalogue. Another one is a mistake.
pub const MAX_FILE: u64 = 1 << 20;
/// Most cases of one document. Each axis multiplies them, so a few lines can ask for more than fit into memory.
pub const MAX_CASES: usize = 10_000;
/// Most bytes of one file's documents together, with the empty lines that keep their line numbers.
const MAX_PADDED: usize = 16 << 20;

/// Reads documents from a file on disk.
pub fn read_file(path: &Path) -> Result<Vec<Document>, Problem> {
    let name: Arc<str> = path.display().to_string().into();
    let text = read_text(path).map_err(|error| Problem {
        file: name.clone(),
        line: 0,
        message: format!("cannot be read: {error}"),
    })?;
    read_documents(&name, &text)
}

/// The text of a file that somebody wrote by hand.
///
/// # Errors
/// When it cannot be read, is no text, or is larger than [`MAX_FILE`].
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    // A device has no size and no end.
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!(
            "it is larger than {MAX_FILE} bytes"
        )));
    }
    Ok(text)
}

/// Reads the documents of a text: one file may hold several, separated by `---`.
pub fn read_documents(file: &str, text: &str) -> Result<Vec<Document>, Problem> {
    let file: Arc<str> = file.into();
    let mut documents = Vec::new();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (mut start, mut bytes) = (0, 0);
    for at in 0..=lines.len() {
        if at == lines.len() || lines[at].trim_end() == "---" {
            let body: String = lines[start..at].concat();
            if body
                .lines()
                .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
            {
                // Empty lines in front keep the line numbers of the file.
                let padded = "\n".repeat(start) + &body;
                bytes += padded.len();
                if bytes > MAX_PADDED {
                    return Err(Problem {
                        file,
                        line: start as u64 + 1,
                        message: "holds too many documents: write them into several files".into(),
                    });
                }
                documents.push(read_document(&file, padded)?);
            }
            start = at + 1;
        }
    }
    if documents.is_empty() {
        return Err(Problem {
            file,
            line: 0,
            message: "holds no scenario document".into(),
        });
    }
    Ok(documents)
}

fn read_document(file: &Arc<str>, text: String) -> Result<Document, Problem> {
    let header: Header = parse(file, &text)?;
    if !is_kebab(&header.id) {
        return Err(at_key(
            file,
            &text,
            "id",
            format!(
                "'{}' is not a scenario id: use lower-case letters, digits and dashes",
                header.id
            ),
        ));
    }
    for axis in header.matrix.keys() {
        if !axis.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(at_key(
                file,
                &text,
                "matrix",
                format!("'{axis}' is not an axis name: use letters and digits"),
            ));
        }
    }
    if let Some((axis, _)) = header.matrix.iter().find(|(_, values)| values.is_empty()) {
        return Err(at_key(
            file,
            &text,
            "matrix",
            format!("axis '{axis}' has no value, so there would be no case"),
        ));
    }
    for (axis, values) in &header.matrix {
        let mut seen = std::collections::BTreeSet::new();
        for value in values.iter().map(ToString::to_string) {
            // The value is part of the case id, which is a directory name and a word of filters.
            if value.is_empty()
                || !value
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                return Err(at_key(
                    file,
                    &text,
                    "matrix",
                    format!(
                        "'{value}' of axis '{axis}' cannot be part of a case id: use letters, digits, '-', '_' and '.'"
                    ),
                ));
            }
            if !seen.insert(value.clone()) {
                return Err(at_key(
                    file,
                    &text,
                    "matrix",
                    format!("axis '{axis}' has the value '{value}' twice"),
                ));
            }
        }
    }
    let sizes = header.matrix.values().map(Vec::len);
    if sizes.fold(1, usize::saturating_mul) > MAX_CASES {
        return Err(at_key(
            file,
            &text,
            "matrix",
            format!("has more than {MAX_CASES} combinations"),
        ));
    }
    for (excluded, value) in header.exclude.iter().flatten() {
        let Some(values) = header.matrix.get(excluded) else {
            return Err(at_key(
                file,
                &text,
                "exclude",
                format!("'{excluded}' is not an axis of the matrix"),
            ));
        };
        if !values
            .iter()
            .any(|have| have.to_string() == value.to_string())
        {
            return Err(at_key(
                file,
                &text,
                "exclude",
                format!("axis '{excluded}' has no value '{value}'"),
            ));
        }
    }
    if header.requirement.is_empty() {
        return Err(at_key(
            file,
            &text,
            "requirement",
            "names no requirement: a scenario proves at least one".into(),
        ));
    }
    let cases = expand(&header);
    if cases.is_empty() {
        return Err(at_key(
            file,
            &text,
            "matrix",
            "no case is left: every combination is excluded".into(),
        ));
    }
    Ok(Document {
        file: file.clone(),
        text: text.into(),
        header,
        cases,
    })
}

fn is_kebab(id: &str) -> bool {
    !id.is_empty()
        && !id.starts_with('-')
        && !id.ends_with('-')
        && id
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn expand(header: &Header) -> Vec<CaseKey> {
    let mut combinations = vec![BTreeMap::new()];
    for (axis, values) in &header.matrix {
        combinations = combinations
            .into_iter()
            .flat_map(|combination| {
                values.iter().map(move |value| {
                    let mut next = combination.clone();
                    next.insert(axis.clone(), value.to_string());
                    next
                })
            })
            .collect();
    }
    combinations
        .into_iter()
        .filter(|axes: &BTreeMap<String, String>| {
            let excluded = header.exclude.iter().any(|entry| {
                entry
                    .iter()
                    .all(|(axis, value)| axes.get(axis) == Some(&value.to_string()))
            });
            let wanted = header.case.as_ref().is_none_or(|only| only == axes);
            !excluded && wanted
        })
        .map(|axes| {
            let values: Vec<&str> = axes.values().map(String::as_str).collect();
            let id = if values.is_empty() {
                header.id.clone()
            } else {
                format!("{}[{}]", header.id, values.join(","))
            };
            CaseKey { id, axes }
        })
        .collect()
}

impl Document {
    /// The topology that a case asks for.
    pub fn topology(&self, key: &CaseKey) -> Result<Topology, Problem> {
        let text = self.substitute(&self.text, |name| axis_variable(&key.axes, name), true)?;
        Ok(parse::<TopologyOnly>(&self.file, &text)?.topology)
    }

    /// Makes one of the document's cases ready to run.
    pub fn resolve(&self, key: &CaseKey) -> Result<Case, Problem> {
        let plan = Plan::new(&self.topology(key)?.lab())
            .map_err(|error| at_key(&self.file, &self.text, "topology", error.to_string()))?;
        self.resolve_at(key, plan)
    }

    /// As [`Self::resolve`], where everything has other addresses than in a world of our own.
    pub fn resolve_at(&self, key: &CaseKey, plan: Plan) -> Result<Case, Problem> {
        let text = self.substitute(&self.text, |name| axis_variable(&key.axes, name), true)?;
        let family = key.axes.get("family").map_or("ipv4", String::as_str);
        let text = self.substitute(&text, |name| plan_variable(&plan, family, name), false)?;
        let scenario: Scenario = parse(&self.file, &text)?;
        let line_of = |key: &str| at_key(&self.file, &text, key, String::new()).line;
        super::validate::validate(&self.file, &scenario, key).map_err(|mut problem| {
            if problem.line == 0 {
                // It is about the steps as a whole.
                problem.line = line_of("steps");
            }
            tracing::debug!(%problem, "rejected a scenario");
            problem
        })?;
        let document = match &self.header.case {
            Some(_) => text.trim_start_matches('\n').to_owned(),
            None => with_case(&text, key),
        };
        self.reads_as(key, &document)?;
        Ok(Case {
            key: key.clone(),
            document: self.clone(),
            file: self.file.clone(),
            text: document,
            scenario,
            plan,
            objects_line: line_of("objects"),
            topology_line: line_of("topology"),
        })
    }

    /// Whether the text of a case is that case again. A mapping in lines gets one line more, which always is; everything else is looked at.
    fn reads_as(&self, key: &CaseKey, text: &str) -> Result<(), Problem> {
        let mut lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.next().unwrap_or_default();
        if first.starts_with(|c: char| c.is_ascii_alphabetic())
            && !lines.any(|line| line.starts_with("..."))
        {
            return Ok(());
        }
        let again = read_documents(&self.file, text);
        match again.as_deref() {
            Ok([document]) if document.cases == [key.clone()] => Ok(()),
            _ => Err(Problem {
                file: self.file.clone(),
                line: 0,
                message: "its cases cannot be written down one by one: write the document as 'key: value' lines, without an indentation and without '...'".into(),
            }),
        }
    }

    /// Replaces `$(name)` in everything but comments. With `lenient`, unknown names stay for the next pass.
    fn substitute(
        &self,
        text: &str,
        lookup: impl Fn(&str) -> Option<String>,
        lenient: bool,
    ) -> Result<String, Problem> {
        let mut out = String::with_capacity(text.len());
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if line.trim_start().starts_with('#') {
                out.push_str(line);
                continue;
            }
            let mut rest = line;
            while let Some(at) = rest.find("$(") {
                out.push_str(&rest[..at]);
                let after = &rest[at + 2..];
                let end = after.find(')').ok_or_else(|| Problem {
                    file: self.file.clone(),
                    line: number as u64 + 1,
                    message: "'$(' without ')'".into(),
                })?;
                let name = &after[..end];
                match lookup(name) {
                    Some(value) => out.push_str(&value),
                    None if lenient => out.push_str(&rest[at..at + 2 + end + 1]),
                    None => {
                        return Err(Problem {
                            file: self.file.clone(),
                            line: number as u64 + 1,
                            message: format!(
                                "unknown variable '$({name})': an axis of the matrix, pod.NAME.ip, node.NAME.ip, outside.NODE.ip, externalIP.N, loadBalancerIP.N or serviceIP.N (each also with .ipv4 or .ipv6 instead of the case's family)"
                            ),
                        });
                    }
                }
                rest = &after[end + 1..];
            }
            out.push_str(rest);
        }
        Ok(out)
    }
}

#[derive(Deserialize)]
struct TopologyOnly {
    #[serde(default)]
    topology: Topology,
}

impl Topology {
    /// The part of the topology that is wires and namespaces. Pods that start later are planned too, so that their
    /// addresses are known from the beginning.
    pub fn lab(&self) -> lab::Topology {
        lab::Topology {
            nodes: self
                .nodes
                .iter()
                .map(|node| lab::NodeSpec {
                    name: node.name.clone(),
                    zone: node.zone.clone(),
                    networks: node.networks.clone(),
                })
                .collect(),
            pods: self.pods.iter().map(super::doc::Pod::lab).collect(),
            outside: Some(lab::OutsideSpec {
                mtu: self.outside.mtu,
            }),
            clients: self
                .clients
                .iter()
                .map(|client| lab::ClientSpec {
                    name: client.name.clone(),
                    network: client.network.clone(),
                    through: client.through.clone(),
                })
                .collect(),
        }
    }
}

impl super::doc::Pod {
    /// The pod as the lab knows it.
    pub fn lab(&self) -> lab::PodSpec {
        lab::PodSpec {
            name: self.name.clone(),
            node: self.node.clone(),
            host_network: self.host_network,
            mtu: self.mtu,
        }
    }
}

/// Variables that follow from the axes alone.
fn axis_variable(axes: &BTreeMap<String, String>, name: &str) -> Option<String> {
    if let Some(value) = axes.get(name) {
        return Some(value.clone());
    }
    let text = match name {
        "ipFamily" => match axes.get("family")?.as_str() {
            "ipv4" => "IPv4",
            "ipv6" => "IPv6",
            _ => return None,
        },
        "addressType" => return axis_variable(axes, "ipFamily"),
        "proto" => return Some(axes.get("protocol")?.to_lowercase()),
        _ => return None,
    };
    Some(text.into())
}

/// Variables that follow from the address plan. `family` is the case's.
fn plan_variable(plan: &Plan, family: &str, name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let family_of = |part: &str| match part {
        "ip" => Some(family == "ipv6"),
        "ipv4" => Some(false),
        "ipv6" => Some(true),
        _ => None,
    };
    let pick = |six: bool, v4: std::net::Ipv4Addr, v6: std::net::Ipv6Addr| {
        if six { v6.to_string() } else { v4.to_string() }
    };
    match parts.as_slice() {
        ["pod", pod, part] => {
            let addresses = plan.pod(pod)?;
            Some(pick(family_of(part)?, addresses.ipv4, addresses.ipv6))
        }
        ["node", node, part] => {
            let addresses = plan.node(node)?;
            Some(pick(family_of(part)?, addresses.ipv4, addresses.ipv6))
        }
        ["node", node, network, part] => {
            let (v4, v6) = plan.node(node)?.extra.get(*network)?;
            Some(pick(family_of(part)?, *v4, *v6))
        }
        ["outside", node, part] => {
            let addresses = plan.outside(node)?;
            Some(pick(family_of(part)?, addresses.ipv4, addresses.ipv6))
        }
        [
            kind @ ("externalIP" | "loadBalancerIP" | "serviceIP"),
            rest @ ..,
        ] => {
            let number: u8 = rest.first()?.parse().ok()?;
            let six = family_of(rest.get(1).copied().unwrap_or("ip"))?;
            let family = if six {
                netlab::Family::Ipv6
            } else {
                netlab::Family::Ipv4
            };
            let address = match *kind {
                "externalIP" => plan.external_ip(number, family),
                "loadBalancerIP" => plan.load_balancer_ip(number, family),
                _ => plan.service_ip(number, family)?,
            };
            Some(address.to_string())
        }
        _ => None,
    }
}

/// Replaces the variables that follow from the address plan in every string of a value, as in a document without a family axis.
pub fn substitute_addresses(
    plan: &Plan,
    value: &serde_json::Value,
) -> Result<serde_json::Value, String> {
    use serde_json::Value;
    Ok(match value {
        Value::String(text) if text.contains("$(") => {
            let mut out = String::new();
            let mut rest = text.as_str();
            while let Some((before, after)) = rest.split_once("$(") {
                let (name, after) = after
                    .split_once(')')
                    .ok_or_else(|| format!("'$(' without ')' in '{text}'"))?;
                out.push_str(before);
                out.push_str(
                    &plan_variable(plan, "ipv4", name)
                        .ok_or_else(|| format!("unknown variable '$({name})'"))?,
                );
                rest = after;
            }
            out.push_str(rest);
            Value::String(out)
        }
        Value::Array(list) => Value::Array(
            list.iter()
                .map(|one| substitute_addresses(plan, one))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, one)| Ok((key.clone(), substitute_addresses(plan, one)?)))
                .collect::<Result<_, String>>()?,
        ),
        other => other.clone(),
    })
}

/// The document text that reruns exactly this case: the substituted text plus a `case` restriction.
fn with_case(text: &str, key: &CaseKey) -> String {
    let text = text.trim_start_matches('\n');
    if key.axes.is_empty() {
        return text.to_owned();
    }
    let axes = serde_json::to_string(&key.axes).expect("a map of strings is JSON");
    // As JSON, a document is in braces.
    if let Some(rest) = text.trim_start().strip_prefix('{') {
        return format!("{{\"case\": {axes},{rest}");
    }
    format!("{}\ncase: {axes}\n", text.trim_end())
}

/// Reads one document; the error names its line.
pub fn parse<T: for<'de> Deserialize<'de>>(file: &Arc<str>, text: &str) -> Result<T, Problem> {
    serde_saphyr::from_str(text).map_err(|error| {
        let mut options = serde_saphyr::RenderOptions::default();
        options.source_name = Some(file);
        Problem {
            file: file.clone(),
            line: error.location().map_or(0, |location| location.line()),
            message: once(&error.render_with_options(options)),
        }
    })
}

/// The rendered error says its place and its message twice: before the snippet and in it. Ours says the place first, so that
/// one message and the snippet with a caret remain.
fn once(rendered: &str) -> String {
    let mut lines = rendered.trim_end().lines();
    let first = lines.next().unwrap_or_default();
    let message = first
        .strip_prefix("error: line ")
        .and_then(|rest| rest.split_once(": "))
        .filter(|(place, _)| {
            place
                .chars()
                .all(|c| c.is_ascii_digit() || c.is_ascii_lowercase() || c == ' ')
        })
        .map_or(first, |(_, message)| message);
    let mut text = message.to_owned();
    for line in lines {
        let caret = line.split_once("| ").filter(|(margin, rest)| {
            margin.trim().is_empty() && rest.trim_start().starts_with('^')
        });
        let line = match caret.and_then(|_| line.find('^')) {
            Some(at) => {
                let width = line[at..].chars().take_while(|c| *c == '^').count();
                &line[..at + width]
            }
            None => line,
        };
        text.push('\n');
        text.push_str(line);
    }
    text
}

/// A problem at the line of a top-level key.
pub fn at_key(file: &Arc<str>, text: &str, key: &str, message: String) -> Problem {
    let line = text
        .lines()
        .position(|line| {
            line.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(':'))
        })
        .map_or(0, |index| index as u64 + 1);
    Problem {
        file: file.clone(),
        line,
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "id: x\ntitle: X\nrequirement: [A-1]\n";

    fn refused(rest: &str) -> Problem {
        read_documents("f.yaml", &format!("{HEAD}{rest}")).expect_err(rest)
    }

    #[test]
    fn case_ids_cannot_collide_or_leave_their_directory() {
        for (matrix, part) in [
            ("matrix: {a: [1, '1']}", "twice"),
            ("matrix: {a: ['x,y'], b: [z]}", "case id"),
            ("matrix: {a: [../../etc]}", "case id"),
            ("matrix: {a: ['']}", "case id"),
            ("matrix: {a: [x]}\nexclude: [{a: z}]", "no value 'z'"),
        ] {
            let problem = refused(matrix);
            assert!(problem.message.contains(part), "{problem}");
            assert!(problem.line > 0, "{problem}");
        }
    }

    #[test]
    fn a_case_can_be_written_down_alone() {
        let steps = "steps: [{converge: {}}]\n";
        let plain = format!("# Why.\n{HEAD}matrix: {{a: [x, y]}}\n{steps}");
        let json = r#"{"id": "x", "title": "X", "requirement": ["A-1"], "matrix": {"a": ["x", "y"]}, "steps": [{"converge": {}}]}"#;
        for text in [plain.as_str(), json] {
            let documents = read_documents("f.yaml", text).expect(text);
            let case = documents[0].resolve(&documents[0].cases[1]).expect(text);
            let again = read_documents("again.yaml", &case.text).expect(&case.text);
            assert_eq!(again[0].cases, [documents[0].cases[1].clone()]);
            let same = again[0].resolve(&again[0].cases[0]).expect("again");
            assert_eq!(same.text, case.text);
        }
        for text in [
            format!("{plain}...\n"),
            plain.replace('\n', "\n ").replacen("# Why.", " # Why.", 1),
        ] {
            let documents = read_documents("f.yaml", &text).expect(&text);
            let problem = documents[0]
                .resolve(&documents[0].cases[1])
                .expect_err(&text);
            assert!(problem.message.contains("one by one"), "{problem}");
        }
    }

    #[test]
    fn a_few_lines_cannot_ask_for_more_than_there_is() {
        let ten = "[a, b, c, d, e, f, g, h, i, j]";
        let axes: String = (0..5).map(|n| format!("  x{n}: {ten}\n")).collect();
        let problem = refused(&format!("matrix:\n{axes}"));
        assert!(
            problem
                .to_string()
                .starts_with("f.yaml:4: has more than 10000"),
            "{problem}"
        );
        let many = format!("{HEAD}---\n").repeat(10_000);
        let problem = read_documents("f.yaml", &many).expect_err("too many");
        assert!(problem.message.contains("several files"), "{problem}");
        let large = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(large.path(), " ".repeat(MAX_FILE as usize + 1)).expect("a file");
        let problem = read_file(large.path()).expect_err("too large");
        assert!(problem.message.contains("larger than"), "{problem}");
        let endless = read_file("/dev/zero".as_ref()).expect_err("endless");
        assert!(endless.message.contains("larger than"), "{endless}");
    }

    #[test]
    fn messages_are_said_once() {
        let problem = refused("level: hard\n");
        let text = problem.to_string();
        assert!(text.starts_with("f.yaml:4: "), "{text}");
        assert!(
            !text.contains("error:") && !text.contains("column"),
            "{text}"
        );
        assert!(text.contains("f.yaml:4:8") && text.contains('^'), "{text}");
        assert_eq!(text.matches("expected").count(), 1, "{text}");
    }
}
