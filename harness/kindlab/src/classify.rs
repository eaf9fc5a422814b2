//! What the output of a failed command means: one table, and a pure function that looks things up in it.
//!
//! Neither kind nor the engines have exit codes for kinds of failures, so their words are all there is. The words were taken from real runs (the
//! transcripts in `tests/transcripts`) and from the sources of kind; what no row knows becomes [`KindError::Other`] with the command and its last words.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

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
            there: None,
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
            &["not present locally"],
        ],
        means: |transcript, detail| KindError::ImageMissing {
            image: image_in(&detail)
                .or_else(|| value_of(transcript, "--image"))
                .unwrap_or_else(|| "?".to_owned()),
            // Why it could not be pulled is in another line.
            detail: last_words(&transcript.stderr),
        },
    },
    Row {
        words: &[
            &["ctr: unrecognized image format"],
            &["ctr: archive/tar"],
            &["ctr: failed to ingest"],
            &["error: stat ", "no such file or directory"],
            &["invalid tar header"],
        ],
        means: |_, detail| KindError::BadArchive { detail },
    },
    Row {
        words: &[
            &["not run on a host using cgroup v1"],
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
            &["is not a valid node role"],
            &["unknown flag"],
            &["error reading file"],
            &["invalid reference format"],
            &["unrecognized feature gate"],
            &["failed to apply", "patch"],
            &["error unmarshaling"],
        ],
        // What is wrong with it may be in the lines that follow.
        means: |transcript, _| KindError::BadConfig {
            detail: last_words(&transcript.stderr),
        },
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
    // kubeadm waits for a minute or four for each of its phases, depending on its version.
    Row {
        words: &[
            &["error execution phase", "timed out"],
            &["error execution phase", "deadline"],
            &["timed out waiting for the condition"],
            &["context deadline exceeded"],
        ],
        means: |_, detail| KindError::Timeout {
            what: "a phase of kubeadm".to_owned(),
            after: None,
            detail,
        },
    },
    Row {
        words: &[
            &["container", "is not running"],
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
            after: Some(Duration::from_secs(30)),
            detail,
        },
    },
];

/// What it means that this command failed.
pub fn classify(transcript: &Transcript) -> KindError {
    // Spinners and progress are of no interest, and the words may be spread over both streams.
    let text = format!("{}\n{}", transcript.stderr, transcript.stdout);
    for row in TABLE {
        // All words of a group have to be in one line: a log of 200 lines has every word somewhere. Of several such lines the shortest says it best; others
        // are dumps that have it in them.
        let found = text
            .lines()
            .filter(|line| {
                let line = line.to_lowercase();
                row.words
                    .iter()
                    .any(|group| group.iter().all(|word| line.contains(word)))
            })
            .min_by_key(|line| line.len());
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
    // kind's own error, if there is one, and what the command that it ran said last. kubeadm ends with a stack trace.
    let own = lines.iter().rposition(|line| line.starts_with("ERROR:"));
    let last = lines
        .iter()
        .rposition(|line| line.to_lowercase().starts_with("error") || line.contains(": Error "))
        .filter(|last| own.is_none_or(|own| *last > own));
    let said = |from: usize| {
        let lines = lines[from..].iter().filter(|line| !is_klog(line));
        lines
            .take(3)
            .map(|line| without_arguments(line))
            .collect::<Vec<_>>()
            .join(" / ")
    };
    let mut words = match (own, last) {
        (Some(own), Some(last)) => format!("{} / {}", without_arguments(&lines[own]), lines[last]),
        (None, Some(last)) => lines[last].clone(),
        (Some(own), None) => said(own),
        (None, None) => said(lines.len().saturating_sub(3)),
    };
    const ENOUGH: usize = 1000;
    if words.len() > ENOUGH {
        let end = words.floor_char_boundary(ENOUGH);
        words.truncate(end);
        words.push_str(" ...");
    }
    words
}

/// `I1126 13:45:58.642485     117 ...`: what Kubernetes' programs write while all is well, and while it is not.
fn is_klog(line: &str) -> bool {
    let mut chars = line.chars();
    chars.next().is_some_and(|char| "IWE".contains(char))
        && chars.by_ref().take(4).filter(char::is_ascii_digit).count() == 4
}

/// kind writes whole commands into its errors: the program, its verb and its object are enough of them.
fn without_arguments(line: &str) -> String {
    let parts = || {
        let (before, rest) = line.split_once("command \"")?;
        let (command, after) = rest.split_once("\" failed with")?;
        let words: Vec<&str> = command.split(' ').collect();
        (words.len() > 6).then(|| {
            format!(
                "{before}command \"{} ...\" failed with{after}",
                words[..6].join(" ")
            )
        })
    };
    parts().unwrap_or_else(|| line.to_owned())
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
    plain.chars().take(1000).collect()
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

/// The image in `failed to pull image "X"`, `image: "X" not present`, `No such image: X` or `Error: X: image not known`.
fn image_in(line: &str) -> Option<String> {
    let quoted = |after: &str| {
        let (_, rest) = line.split_once(after)?;
        rest.split_once('"').map(|(image, _)| image)
    };
    let plain = || {
        let at = line.to_lowercase().find("no such image: ")?;
        line[at + "no such image: ".len()..]
            .split(['"', ' '])
            .next()
    };
    let podman = || line.strip_suffix(": image not known")?.rsplit(' ').next();
    quoted("image \"")
        .or_else(|| quoted("image: \""))
        .or_else(plain)
        .or_else(podman)
        .map(|image| image.trim_end_matches('.').to_owned())
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

/// The container of `docker exec --privileged -i NODE COMMAND`, run by kind or by us.
fn node_in(transcript: &Transcript) -> String {
    fn of<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<String> {
        words.find(|word| *word == "exec")?;
        words.find(|word| !word.starts_with('-')).map(str::to_owned)
    }
    of(transcript.argv.iter().map(String::as_str))
        .or_else(|| of(transcript.stderr.split_whitespace()))
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
            last_words("ERROR: oh\n\nCommand Output: I1 x\nerror: no\nat main.go\n"),
            "ERROR: oh / error: no"
        );
        assert_eq!(
            last_words(
                " \u{2022} Preparing \r \u{1b}[31mERROR\u{1b}[0m: failed to create cluster\n\nCommand Output: oh\n"
            ),
            "ERROR: failed to create cluster / oh"
        );
        assert_eq!(last_words("a\nb\nc\nd\n"), "b / c / d");
        assert!(last_words(&"ä".repeat(2000)).len() < 1010);
    }
}
