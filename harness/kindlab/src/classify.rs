//! What the output of a failed command means: one table, and a pure function that looks things up in it.
//!
//! Neither kind nor the engines have exit codes for kinds of failures, so their words are all there is. The words were taken from real runs (the
//! transcripts in `tests/transcripts`) and from the sources of kind; what no row knows becomes [`KindError::Other`] with the command and its last words.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::error::KindError;
use crate::log::{Ended, quoted};

/// A command that failed, and what it said.
#[derive(Debug, Clone)]
pub struct Transcript {
    /// The program's name and its arguments.
    pub argv: Vec<String>,
    /// How it ended.
    pub ended: Ended,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A row: the words (all of a group, any group), and what they mean.
struct Row {
    words: &'static [&'static [&'static str]],
    means: fn(&Transcript, String) -> KindError,
}

/// The first row that fits counts, so that a cause is above its consequences. Words are compared in lower case.
const TABLE: &[Row] = &[
    // The kernel reports a lack of inotify watches as ENOSPC, so this is above the full disk.
    Row {
        words: &[
            &["too many open files"],
            &["inotify", "no space left on device"],
            &["failed to create fsnotify watcher"],
            &["inotify watch limit"],
        ],
        means: |_, detail| KindError::OutOfInotify { detail },
    },
    Row {
        words: &[&["no space left on device"], &["disk quota exceeded"]],
        means: |_, detail| KindError::DiskFull { detail },
    },
    Row {
        words: &[
            &["executable file not found in $path"],
            &["failed to detect any supported node provider"],
        ],
        means: |_, detail| KindError::NotInstalled {
            program: "docker, podman or nerdctl".to_owned(),
            hint: format!("install one of them, and put it into PATH; it said: {detail}"),
        },
    },
    Row {
        words: &[
            &["permission denied while trying to connect"],
            &["connect: permission denied"],
            &["permission denied", "docker.sock"],
            &["permission denied", "containerd.sock"],
        ],
        means: |transcript, detail| KindError::NoPermission {
            engine: engine_of(transcript),
            detail,
        },
    },
    Row {
        words: &[
            &["cannot connect to the docker daemon"],
            &["failed to connect to the docker api"],
            &["is the docker daemon running"],
            &["cannot connect to podman"],
            &["unable to connect to podman"],
            &["cannot access containerd socket"],
            &["rootless containerd not running"],
            &["error during connect:"],
        ],
        means: |transcript, detail| KindError::EngineDown {
            engine: engine_of(transcript),
            detail,
        },
    },
    Row {
        words: &[
            &["node(s) already exist for a cluster with the name"],
            &["conflict. the container name"],
        ],
        means: |transcript, _| KindError::NameTaken {
            name: value_of(transcript, "--name").unwrap_or_default(),
        },
    },
    Row {
        words: &[
            &["unknown cluster"],
            &["no nodes found for cluster"],
            &["could not locate any control plane nodes"],
        ],
        means: |transcript, _| KindError::UnknownCluster {
            name: value_of(transcript, "--name").unwrap_or_default(),
            there: Vec::new(),
        },
    },
    Row {
        words: &[
            &["port is already allocated"],
            &["bind: address already in use"],
            &["failed to bind host port"],
            &["ports are not available"],
        ],
        means: |_, detail| KindError::PortInUse {
            port: port_in(&detail),
            detail,
        },
    },
    Row {
        words: &[
            &["failed to pull image"],
            &["unable to find image"],
            &["no such image"],
            &["pull access denied"],
            &["manifest unknown"],
            &["image not known"],
        ],
        means: |transcript, detail| KindError::ImageMissing {
            image: value_of(transcript, "--image").unwrap_or_else(|| quoted_in(&detail)),
            detail,
        },
    },
    Row {
        words: &[
            &["cgroup v1", "not", "run"],
            &["cgroup v1 support is unsupported"],
            &["requires cgroup v2"],
            &["cgroups v1", "unsupported"],
        ],
        means: |_, detail| KindError::CgroupV1 { detail },
    },
    Row {
        words: &[
            &["unable to decode config"],
            &["unknown apiversion"],
            &["unknown kind"],
            &["could not determine kind / apiversion"],
            &["invalid kubeproxymode"],
            &["invalid ipfamily"],
            &["is not a valid cluster name"],
            &["invalid pod subnet"],
            &["invalid service subnet"],
            &["invalid configuration for node"],
            &["error reading file"],
            &["invalid reference format"],
            &["unrecognized feature gate"],
            &["failed to apply", "patch"],
            &["error unmarshaling"],
        ],
        means: |_, detail| KindError::BadConfig { detail },
    },
    Row {
        words: &[
            &["apply caps"],
            &["can't apply capabilities"],
            &[
                "unable to start container process",
                "operation not permitted",
            ],
            &["oci runtime create failed", "operation not permitted"],
            &["runc create failed", "operation not permitted"],
            &["crun", "operation not permitted"],
            &["privileged mode is incompatible"],
            &["privileged", "not allowed"],
        ],
        means: |transcript, detail| KindError::NoPrivileged {
            engine: engine_of(transcript),
            detail,
        },
    },
    Row {
        words: &[
            &["is not running"],
            &["no such container"],
            &["container state improper"],
            &["no such object"],
        ],
        means: |transcript, detail| KindError::NodeGone {
            node: node_in(transcript),
            state: format!("is not running or does not exist ({detail})"),
        },
    },
    // Of `kind create`: a node whose systemd did not come up within kind's own 30 s.
    Row {
        words: &[&["could not find a log line that matches"]],
        means: |_, detail| KindError::Timeout {
            what: "the start of a node's systemd".to_owned(),
            after: std::time::Duration::from_secs(30),
            detail,
        },
    },
    Row {
        words: &[
            &["timed out waiting for the condition"],
            &["context deadline exceeded"],
        ],
        means: |transcript, detail| KindError::Timeout {
            what: format!("what `{}` waits for", quoted(&transcript.argv)),
            after: std::time::Duration::from_secs(240),
            detail,
        },
    },
];

/// What it means that this command failed.
pub fn classify(transcript: &Transcript) -> KindError {
    // Spinners and progress are of no interest, and the words may be spread over both streams.
    let text = format!("{}\n{}", transcript.stderr, transcript.stdout);
    for row in TABLE {
        // All words of a group have to be in one line: a log of 200 lines has every word somewhere.
        let found = text.lines().find(|line| {
            let line = line.to_lowercase();
            row.words
                .iter()
                .any(|group| group.iter().all(|word| line.contains(word)))
        });
        if let Some(line) = found {
            return (row.means)(transcript, tidy(line));
        }
    }
    KindError::Other {
        command: quoted(&transcript.argv),
        ended: transcript.ended.to_string(),
        detail: last_words(&text),
    }
}

/// What a log of a node or of its kubelet says about a failed creation, if it names one of the causes that kind does not see. Such logs are full of
/// other errors, which pass.
pub(crate) fn cause_in_log(log: &str) -> Option<KindError> {
    type Cause = (&'static [&'static str], fn(String) -> KindError);
    const CAUSES: [Cause; 4] = [
        (&["cgroup v1", "configured to not run"], |detail| {
            KindError::CgroupV1 { detail }
        }),
        (&["too many open files"], |detail| KindError::OutOfInotify {
            detail,
        }),
        (&["inotify", "no space left on device"], |detail| {
            KindError::OutOfInotify { detail }
        }),
        (&["no space left on device"], |detail| KindError::DiskFull {
            detail,
        }),
    ];
    CAUSES.iter().find_map(|(words, means)| {
        let line = log.lines().find(|line| {
            let line = line.to_lowercase();
            words.iter().all(|word| line.contains(word))
        })?;
        Some(means(tidy(line)))
    })
}

/// The last lines of an output that say anything, as one line.
pub(crate) fn last_words(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(tidy)
        .filter(|line| !line.is_empty())
        .collect();
    if lines.is_empty() {
        return "nothing".to_owned();
    }
    // kind's own error first, if there is one: what follows it is the output of the command that failed.
    let from = lines
        .iter()
        .rposition(|line| line.starts_with("ERROR:"))
        .unwrap_or_else(|| lines.len().saturating_sub(3));
    let mut words = lines[from..].join(" / ");
    const ENOUGH: usize = 600;
    if words.len() > ENOUGH {
        let end = words.floor_char_boundary(ENOUGH);
        words.truncate(end);
        words.push_str(" ...");
    }
    words
}

/// A line without colours, without what a terminal would have overwritten, and not too long.
fn tidy(line: &str) -> String {
    let line = line
        .rsplit('\r')
        .find(|part| !part.trim().is_empty())
        .unwrap_or("");
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        if char == '\u{1b}' {
            // A control sequence ends with its first letter.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else if !char.is_control() {
            plain.push(char);
        }
    }
    let plain = plain.trim().trim_start_matches("Command Output: ");
    plain.chars().take(400).collect()
}

fn engine_of(transcript: &Transcript) -> String {
    let program = transcript.argv.first().map(String::as_str).unwrap_or("");
    if program != "kind" {
        return program.to_owned();
    }
    let text = transcript.stderr.to_lowercase();
    ["podman", "nerdctl", "finch"]
        .into_iter()
        .find(|engine| text.contains(&format!("command \"{engine} ")))
        .unwrap_or("docker")
        .to_owned()
}

fn value_of(transcript: &Transcript, flag: &str) -> Option<String> {
    let mut words = transcript.argv.iter();
    words.find(|word| *word == flag)?;
    words.next().cloned()
}

/// What is in quotation marks in an engine's words about an image, or the last word.
fn quoted_in(detail: &str) -> String {
    let mut parts = detail.split(['"', '\'']);
    parts
        .nth(1)
        .or_else(|| detail.split_whitespace().last())
        .unwrap_or("?")
        .to_owned()
}

/// The port in `Bind for 127.0.0.1:6443 failed`, `listen tcp4 0.0.0.0:80: bind: ...` or `host port for [::1]:80:[fc00::2]:8080/tcp`.
fn port_in(line: &str) -> String {
    line.split_whitespace()
        .filter_map(port_after_address)
        .next_back()
        .map_or_else(|| "?".to_owned(), |port| port.to_string())
}

fn port_after_address(word: &str) -> Option<u16> {
    let rest = match word.strip_prefix('[') {
        Some(inside) => {
            let (address, rest) = inside.split_once("]:")?;
            address.parse::<Ipv6Addr>().ok()?;
            rest
        }
        None => {
            let (address, rest) = word.split_once(':')?;
            address.parse::<Ipv4Addr>().ok()?;
            rest
        }
    };
    let digits = rest
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

fn node_in(transcript: &Transcript) -> String {
    // `docker exec [flags] NODE COMMAND ...`: the engine says the name where it says which one.
    let text = format!("{}\n{}", transcript.stderr, transcript.stdout);
    let word = text
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'', ',', ':', '.']))
        .find(|word| {
            transcript
                .argv
                .iter()
                .skip(1)
                .any(|argument| argument == word)
                && word.contains('-')
        });
    word.map(str::to_owned)
        .or_else(|| {
            transcript
                .argv
                .iter()
                .skip(2)
                .find(|word| !word.starts_with('-'))
                .cloned()
        })
        .unwrap_or_else(|| "?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found() {
        for (line, port) in [
            (
                "Bind for 127.0.0.1:6443 failed: port is already allocated.",
                "6443",
            ),
            (
                "failed to bind host port for 0.0.0.0:80:172.18.0.2:8080/tcp: address already in use",
                "80",
            ),
            (
                "listen tcp4 127.0.0.1:38080: bind: address already in use",
                "38080",
            ),
            (
                "failed to bind host port [::1]:6443: address already in use",
                "6443",
            ),
            ("Bind for somewhere failed: port is already allocated", "?"),
        ] {
            assert_eq!(port_in(line), port, "{line}");
        }
    }

    #[test]
    fn words_are_looked_for_in_one_line() {
        let transcript = |stderr: &str| Transcript {
            argv: vec!["kind".to_owned(), "create".to_owned()],
            ended: Ended::Exited(1),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        assert_eq!(
            classify(&transcript("inotify_add_watch: no space left on device")).case(),
            "OutOfInotify"
        );
        assert_eq!(
            classify(&transcript(
                "inotify is fine\nwrite: no space left on device"
            ))
            .case(),
            "DiskFull"
        );
        assert_eq!(classify(&transcript("something else")).case(), "Other");
    }

    #[test]
    fn the_last_words_are_plain() {
        assert_eq!(last_words(""), "nothing");
        assert_eq!(
            last_words(
                " \u{2022} Preparing \r \u{1b}[31mERROR\u{1b}[0m: failed to create cluster\n\nCommand Output: oh\n"
            ),
            "ERROR: failed to create cluster / oh"
        );
        assert_eq!(last_words("a\nb\nc\nd\n"), "b / c / d");
        assert!(last_words(&"ä".repeat(2000)).len() < 620);
    }
}
