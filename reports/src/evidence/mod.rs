//! What is shown of the evidence of failed attempts: the parts of it that are about the failure, bounded in size.
//!
//! The evidence is written by the harness below the directory of the run, and everything in it comes from candidates in the end. So nothing
//! outside of that directory is read, whatever the log says, no more than so many bytes of any file, and files that make no sense are left out.
//! Evidence that is missing is no error: a report that was copied alone is still a report.
//!
//! ```text
//!  cases/CASE/1/  matrix.txt    -> matrix.rs    expected and actual, source by frontend
//!                 objects.json  -> world.rs     nodes, pods, Services: the drawing
//!                 story.txt     -> excerpt.rs   the steps, up to the one that broke it
//!                 nodes/NODE/   nft.txt ...      -> ruleset.rs   rules on the way of the failing cell
//!                               conntrack.txt    -> excerpt.rs   entries of its flows
//!                               candidate.log    -> excerpt.rs   complaints, and the end
//!                               packets.pcap     -> packets.rs   the packets of its last flow, decoded
//! ```

mod cell;
mod excerpt;
mod matrix;
mod packets;
mod ruleset;
mod world;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

pub use cell::{Cell, Source};
pub use excerpt::Excerpt;
pub use matrix::{Matrix, MatrixRow};
pub use world::{Pod, World, WorldNode};

use crate::event::Verdict;
use crate::model::{Attempt, CaseResult, CaseVerdict, Report};

/// Cases whose evidence is shown; the first of every cause come before the others.
const MAX_CASES: usize = 60;

/// Bytes of evidence that are shown of all cases together.
const MAX_BYTES: usize = 2 << 20;

/// Bytes of packets that are read of all cases together, so that a run with many failures does not take long to end.
const MAX_PACKET_BYTES: u64 = 96 << 20;

/// Bytes of one text file that are looked at.
const MAX_FILE: u64 = 4 << 20;

/// Bytes of one capture that are looked at. The harness keeps 8 MiB of each node.
const MAX_CAPTURE: u64 = 9 << 20;

/// What is shown of one failed attempt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shown {
    /// Number of the attempt.
    pub attempt: u32,
    /// The cell that failed first.
    pub cell: Option<Cell>,
    /// Nodes, pods and Services at the time of the failure.
    pub world: Option<World>,
    /// Every source and frontend after the failure.
    pub matrix: Option<Matrix>,
    /// The reasons of the model for what it expects of the failing cell.
    pub why: Vec<String>,
    /// What happened when, with what failed.
    pub story: Option<Excerpt>,
    /// The node that the failing cell's packets meet first, whose files the following are from.
    pub node: Option<String>,
    /// The rules that name the failing cell, and the chains that they lead to.
    pub ruleset: Option<Excerpt>,
    /// The connection tracking entries of the failing cell.
    pub conntrack: Option<Excerpt>,
    /// What the candidate complained about, and the end of its log.
    pub log: Option<Excerpt>,
    /// The packets of the failing cell's last flow.
    pub packets: Option<Excerpt>,
}

impl Shown {
    fn bytes(&self) -> usize {
        let excerpts = [
            &self.story,
            &self.ruleset,
            &self.conntrack,
            &self.log,
            &self.packets,
        ];
        let excerpts = excerpts.into_iter().flatten();
        let lines = excerpts.flat_map(|excerpt| &excerpt.lines);
        let lines = lines.map(|line| line.text.len() + 8).sum::<usize>();
        lines + self.matrix.as_ref().map_or(0, Matrix::bytes)
    }
}

/// What is shown of the evidence of each case, by the id of the case.
pub type Evidence = HashMap<String, Shown>;

/// Reads what is to be shown from the directory of a run.
pub fn collect(dir: &Path, report: &Report) -> Evidence {
    let mut evidence = Evidence::new();
    let Ok(dir) = dir.canonicalize() else {
        return evidence;
    };
    let (mut bytes, mut packet_bytes) = (0, MAX_PACKET_BYTES);
    for case in by_importance(report) {
        if evidence.len() >= MAX_CASES || bytes >= MAX_BYTES {
            break;
        }
        let Some((attempt, place)) = first_with_evidence(&dir, case) else {
            continue;
        };
        let shown = read(&place, attempt, &mut packet_bytes);
        bytes += shown.bytes();
        evidence.insert(case.id.clone(), shown);
    }
    evidence
}

/// Cases that did not pass: one of every cause, then the others, in the order of the plan.
fn by_importance(report: &Report) -> Vec<&CaseResult> {
    let by_id: HashMap<&str, &CaseResult> = report
        .cases
        .iter()
        .filter(|case| matches!(case.verdict, CaseVerdict::Fail | CaseVerdict::Flaky))
        .map(|case| (case.id.as_str(), case))
        .collect();
    let examples = report
        .causes
        .iter()
        .map(|cause| cause.example_case.as_str());
    let all = report.cases.iter().map(|case| case.id.as_str());
    let mut seen = std::collections::HashSet::new();
    examples
        .chain(all)
        .filter(|id| seen.insert(*id))
        .filter_map(|id| by_id.get(id).copied())
        .collect()
}

/// The first failed attempt whose evidence is there, and where.
fn first_with_evidence<'a>(dir: &Path, case: &'a CaseResult) -> Option<(&'a Attempt, PathBuf)> {
    case.attempts_with(Verdict::Fail).find_map(|attempt| {
        let place = inside(dir, attempt.evidence.as_deref()?)?;
        Some((attempt, place))
    })
}

/// A directory below that of the run; nothing else, whatever the log and links on the disk say.
fn inside(dir: &Path, relative: &str) -> Option<PathBuf> {
    let relative = Path::new(relative);
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !relative.components().all(plain) {
        return None;
    }
    let place = dir.join(relative).canonicalize().ok()?;
    (place.starts_with(dir) && place != dir && place.is_dir()).then_some(place)
}

/// At most so many bytes of a file; `None` for what is no plain file of this directory.
fn bytes_of(dir: &Path, name: &str, most: u64) -> Option<Vec<u8>> {
    let path = dir.join(name);
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(most)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// At most [`MAX_FILE`] bytes of a text; `None` where there is none, or nothing in it.
fn text_of(dir: &Path, name: &str) -> Option<String> {
    let bytes = bytes_of(dir, name, MAX_FILE)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.trim().is_empty()).then_some(text)
}

fn read(place: &Path, attempt: &Attempt, packet_bytes: &mut u64) -> Shown {
    let cell = attempt
        .failures
        .iter()
        .find_map(|failure| failure.cell.as_deref());
    let cell = cell.and_then(Cell::parse);
    let world = text_of(place, "objects.json").and_then(|text| World::parse(&text));
    let matrix = text_of(place, "matrix.txt");
    let why = match (&matrix, &cell) {
        (Some(text), Some(cell)) => matrix::why(text, &cell.label),
        _ => Vec::new(),
    };
    let node = first_node(place, cell.as_ref(), world.as_ref());
    let mut shown = Shown {
        attempt: attempt.attempt,
        why,
        matrix: matrix.and_then(|text| Matrix::parse(&text)),
        story: text_of(place, "story.txt").and_then(|text| excerpt::story(&text)),
        ..Shown::default()
    };
    if let Some(node) = &node {
        let files = place.join("nodes").join(node);
        let names = Names::of(cell.as_ref(), world.as_ref());
        shown.ruleset = ruleset::of_node(&files, &names);
        let conntrack = text_of(&files, "conntrack.txt");
        shown.conntrack = conntrack
            .as_deref()
            .and_then(|text| excerpt::conntrack(text, &names));
        shown.log = text_of(&files, "candidate.log").and_then(|text| excerpt::log(&text));
        if let Some(cell) = &cell
            && *packet_bytes > 0
            && let Some(bytes) = bytes_of(&files, "packets.pcap", MAX_CAPTURE.min(*packet_bytes))
        {
            *packet_bytes -= (bytes.len() as u64).min(*packet_bytes);
            shown.packets = packets::of_cell(&bytes, cell, &names, conntrack.as_deref());
        }
    }
    Shown {
        cell,
        world,
        node,
        ..shown
    }
}

/// The node whose proxy has to handle the cell: the one whose address is dialled, else the one that the source is on.
fn first_node(place: &Path, cell: Option<&Cell>, world: Option<&World>) -> Option<String> {
    let there = |node: &str| {
        let plain = Path::new(node).components().count() == 1 && node != ".." && node != ".";
        plain && place.join("nodes").join(node).is_dir()
    };
    let known = cell.and_then(|cell| world.and_then(|world| world.handling_node(cell)));
    if let Some(node) = known.filter(|node| there(node)) {
        return Some(node.to_owned());
    }
    let mut nodes: Vec<String> = std::fs::read_dir(place.join("nodes"))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|node| there(node))
        .collect();
    nodes.sort();
    nodes.into_iter().next()
}

/// Addresses, ports and names by which files of a node speak of a failing cell.
#[derive(Debug, Default)]
struct Names {
    /// Address and port that were dialled.
    frontend: Option<std::net::SocketAddr>,
    /// Addresses of the source.
    sources: Vec<String>,
    /// Whether the address is a node's, so that rules speak of the port.
    node_port: bool,
}

impl Names {
    fn of(cell: Option<&Cell>, world: Option<&World>) -> Self {
        let Some(cell) = cell else {
            return Self::default();
        };
        let node_with = |ip| world.and_then(|world| world.node_with(ip));
        Self {
            frontend: cell.address,
            sources: world.map_or_else(Vec::new, |world| world.addresses_of(&cell.from)),
            node_port: cell.address.is_some_and(|a| node_with(a.ip()).is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_the_run_is_read() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().canonicalize().unwrap().join("run");
        std::fs::create_dir_all(dir.join("cases/a/1")).unwrap();
        std::fs::create_dir_all(outer.path().join("secret")).unwrap();
        std::os::unix::fs::symlink(outer.path().join("secret"), dir.join("cases/link")).unwrap();
        assert_eq!(inside(&dir, "cases/a/1"), Some(dir.join("cases/a/1")));
        let absolute = outer.path().join("secret");
        for hostile in [
            "../secret",
            "cases/../../secret",
            absolute.to_str().unwrap(),
            "cases/link",
            "",
            "missing",
        ] {
            assert_eq!(inside(&dir, hostile), None, "{hostile}");
        }
        std::fs::write(outer.path().join("secret/text"), "secret").unwrap();
        let link = dir.join("cases/a/1/matrix.txt");
        std::os::unix::fs::symlink(outer.path().join("secret/text"), link).unwrap();
        assert_eq!(text_of(&dir.join("cases/a/1"), "matrix.txt"), None);
        std::fs::write(dir.join("cases/a/1/story.txt"), "x".repeat(100)).unwrap();
        let read = bytes_of(&dir.join("cases/a/1"), "story.txt", 7);
        assert_eq!(read.unwrap().len(), 7);
    }
}
