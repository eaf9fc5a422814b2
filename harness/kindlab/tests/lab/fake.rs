//! A kind and a container engine without containers: what they keep is files in a directory, and how they fail is told by other files there.
//!
//! The test program is these programs, when it is called `kind` or `docker`. A file `behave/kind-create` (program, first word) has one of:
//!
//! ```text
//! play NAME               prints the transcript NAME and exits as it did
//! play-after-nodes NAME   the same, after the nodes have been made
//! hang                    makes the first node, and never ends
//! hang-with-helper        the same, and something that it has started makes the second node when kind has gone
//! dead-worker             makes all nodes, one of which has exited
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::time::Duration;

use serde_json::{Value, json};

const KIND_LABEL: &str = "io.x-k8s.kind.cluster";

/// What the two programs share.
pub struct State(pub PathBuf);

impl State {
    pub fn of_environment() -> Self {
        Self(PathBuf::from(
            std::env::var_os("FAKE_STATE").expect("FAKE_STATE"),
        ))
    }

    pub fn create(directory: &Path) -> Self {
        for part in ["containers", "volumes", "images", "behave"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        Self(directory.to_owned())
    }

    fn write(&self, part: &str, name: &str, value: &Value) {
        // Whole or not at all: others read while this is written.
        let path = self.0.join(part).join(name.replace('/', "%"));
        let draft = self.0.join(format!("draft-{}", std::process::id()));
        fs::write(&draft, value.to_string()).unwrap();
        fs::rename(draft, path).unwrap();
    }

    fn read(&self, part: &str, name: &str) -> Option<Value> {
        let text = fs::read(self.0.join(part).join(name.replace('/', "%"))).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    fn remove(&self, part: &str, name: &str) -> bool {
        fs::remove_file(self.0.join(part).join(name.replace('/', "%"))).is_ok()
    }

    pub fn names(&self, part: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.join(part))
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .replace('%', "/")
            })
            .collect();
        names.sort();
        names
    }

    fn labelled(&self, part: &str, filter: &str) -> Vec<String> {
        let filter = filter.strip_prefix("label=").unwrap();
        let (key, value) = filter
            .split_once('=')
            .map_or((filter, None), |(key, value)| (key, Some(value)));
        self.names(part)
            .into_iter()
            .filter(|name| {
                let labels = self
                    .read(part, name)
                    .map(|about| about["labels"].clone())
                    .unwrap_or_default();
                labels
                    .get(key)
                    .is_some_and(|is| value.is_none_or(|value| is == value))
            })
            .collect()
    }

    pub fn behave(&self, command: &str, how: &str) {
        fs::write(self.0.join("behave").join(command), how).unwrap();
    }

    pub fn well(&self, command: &str) {
        let _ = fs::remove_file(self.0.join("behave").join(command));
    }

    fn behaviour(&self, command: &str) -> String {
        fs::read_to_string(self.0.join("behave").join(command)).unwrap_or_default()
    }

    /// A container with a name, a role and an address made of a number.
    pub fn container(&self, name: &str, labels: Value, running: bool, number: usize) {
        let about = json!({"labels": labels, "running": running, "exit": if running { 0 } else { 137 }, "number": number});
        self.write("containers", name, &about);
    }

    pub fn node(&self, cluster: &str, number: usize, running: bool) {
        let (name, role) = match number {
            0 => (format!("{cluster}-control-plane"), "control-plane"),
            1 => (format!("{cluster}-worker"), "worker"),
            _ => (format!("{cluster}-worker{number}"), "worker"),
        };
        self.container(
            &name,
            json!({KIND_LABEL: cluster, "io.x-k8s.kind.role": role}),
            running,
            number,
        );
    }

    /// All calls so far, a line each.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.0.join("calls")).unwrap_or_default()
    }

    fn node_images(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("node-images")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Is one of the programs, if that is its name.
pub fn be(program: &str, args: &[String]) -> ! {
    let state = State::of_environment();
    let line = format!("{program} {}\n", args.join(" "));
    let mut calls = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(state.0.join("calls"))
        .unwrap();
    calls.write_all(line.as_bytes()).unwrap();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let how = state.behaviour(&format!("{program}-{}", words[0]));
    if let Some(name) = how.strip_prefix("play ") {
        play(name);
    }
    match program {
        "kind" => kind(&state, &words, &how),
        _ => engine(&state, program, &words),
    }
    exit(0)
}

fn play(name: &str) -> ! {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(format!("{name}.txt"));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (head, outputs) = text.split_once("--- stdout\n").unwrap();
    let (stdout, stderr) = outputs.split_once("--- stderr\n").unwrap();
    print!("{stdout}");
    eprint!("{stderr}");
    io::stdout().flush().unwrap();
    exit(head.trim().rsplit_once("exit ").unwrap().1.parse().unwrap())
}

fn after<'a>(words: &[&'a str], flag: &str) -> Option<&'a str> {
    words
        .iter()
        .position(|word| *word == flag)
        .map(|at| words[at + 1])
}

fn never() -> ! {
    loop {
        std::thread::park();
    }
}

fn kind(state: &State, words: &[&str], how: &str) {
    assert!(
        std::env::var_os("KUBECONFIG").is_none(),
        "the user's kubeconfig is in the environment"
    );
    let name = after(words, "--name").unwrap_or("kind");
    match words[..2.min(words.len())] {
        ["version"] => println!("kind v0.27.0 go1.24.4 linux/amd64"),
        ["create", "cluster"] => create(state, words, name, how),
        ["get", "clusters"] => {
            let mut clusters: Vec<String> = state
                .labelled("containers", &format!("label={KIND_LABEL}"))
                .iter()
                .map(|name| {
                    state.read("containers", name).unwrap()["labels"][KIND_LABEL]
                        .as_str()
                        .unwrap()
                        .to_owned()
                })
                .collect();
            clusters.dedup();
            clusters.iter().for_each(|name| println!("{name}"));
        }
        ["get", "kubeconfig"] => println!("kind: Config # of {name}, with a key"),
        ["load", "image-archive"] => {
            let mut images = state.node_images();
            images.push(
                fs::read_to_string(state.0.join("loads-as")).unwrap_or_else(|_| repo_tag(words[2])),
            );
            fs::write(state.0.join("node-images"), images.join("\n")).unwrap();
        }
        ["export", "logs"] => {
            let node = Path::new(words[2]).join(format!("{name}-control-plane"));
            fs::create_dir_all(&node).unwrap();
            let log = fs::read(state.0.join("kubelet.log")).unwrap_or_default();
            fs::write(node.join("kubelet.log"), log).unwrap();
        }
        ["delete", "cluster"] => {
            assert!(after(words, "--kubeconfig").is_some());
            for node in state.labelled("containers", &format!("label={KIND_LABEL}={name}")) {
                state.remove("containers", &node);
            }
        }
        _ => panic!("a kind that knows no {words:?}"),
    }
}

fn create(state: &State, words: &[&str], name: &str, how: &str) {
    // The marker is older than anything that has to be found by it.
    assert!(
        state.names("volumes").iter().any(|volume| volume == name),
        "no marker"
    );
    let config = fs::read_to_string(after(words, "--config").unwrap()).unwrap();
    fs::write(state.0.join("config"), &config).unwrap();
    let workers = config.matches("role: worker").count();
    match how {
        "hang" | "hang-with-helper" => {
            state.node(name, 0, true);
            let helper = (how == "hang-with-helper").then(|| {
                // It learns of the end of kind from the end of this pipe.
                Command::new(std::env::current_exe().unwrap())
                    .arg0("helper")
                    .args(["run", "--label", &format!("{KIND_LABEL}={name}")])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            });
            fs::write(state.0.join("hangs"), std::process::id().to_string()).unwrap();
            let _held = helper;
            never();
        }
        _ => {}
    }
    for number in 0..=workers {
        state.node(name, number, how != "dead-worker" || number != 1);
    }
    if let Some(transcript) = how.strip_prefix("play-after-nodes ") {
        play(transcript);
    }
    fs::write(after(words, "--kubeconfig").unwrap(), "kind: Config").unwrap();
}

/// What a `docker run` does whose kind has been killed: it goes on.
pub fn helper(label: &str) -> ! {
    let cluster = label.split_once('=').unwrap().1;
    let mut end = Vec::new();
    io::stdin().read_to_end(&mut end).unwrap();
    let state = State::of_environment();
    // Longer than everybody takes who does not wait for it.
    std::thread::sleep(Duration::from_millis(500));
    state.node(cluster, 1, true);
    fs::write(state.0.join("helped"), "").unwrap();
    exit(0)
}

fn repo_tag(archive: &str) -> String {
    let mut archive = tar::Archive::new(fs::File::open(archive).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries
        .find(|entry| entry.path().unwrap() == Path::new("manifest.json"))
        .unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    value[0]["RepoTags"][0].as_str().unwrap().to_owned()
}

fn missing(what: &str) -> ! {
    eprintln!("Error response from daemon: No such {what}");
    exit(1)
}

fn labels_of(words: &[&str]) -> Value {
    let labels: BTreeMap<&str, &str> = words
        .windows(2)
        .filter(|pair| pair[0] == "--label")
        .map(|pair| pair[1].split_once('=').unwrap())
        .collect();
    json!(labels)
}

fn engine(state: &State, program: &str, words: &[&str]) {
    let last = words[words.len() - 1];
    match words[..2.min(words.len())] {
        ["-v"] if program == "docker" => println!("Docker version 26.1.5, build a72d7cd"),
        ["-v"] => println!("{program} version 4.9.3"),
        ["info", ..] => println!(
            "{}",
            json!({"ServerVersion": "26.1.5", "CgroupVersion": "2", "SecurityOptions": ["name=rootless"], "OperatingSystem": "a test"})
        ),
        ["ps", "-a"] => {
            let names = state.labelled("containers", after(words, "--filter").unwrap());
            names.iter().for_each(|name| println!("{name}"));
        }
        ["inspect", "--type"] => {
            let names = &words[3..];
            let found: Vec<Value> = names
                .iter()
                .filter_map(|name| Some(described(name, &state.read("containers", name)?)))
                .collect();
            println!("{}", json!(found));
            if found.len() < names.len() {
                missing("object: it");
            }
        }
        ["rm", "-f"] => words[3..].iter().for_each(|name| {
            if !state.remove("containers", name) {
                missing("container: it");
            }
        }),
        ["exec", "--privileged"] => {
            let name = words[2];
            match state.read("containers", name) {
                Some(about) if about["running"] == true => {}
                _ => missing(&format!("container: {name}")),
            }
            match words[3] {
                "ctr" => state
                    .node_images()
                    .iter()
                    .for_each(|image| println!("{image}")),
                "false" => exit(3),
                _ => println!("ran {}", words[3..].join(" ")),
            }
        }
        ["run", "--rm"] if words.contains(&"-i") => outside(state, words),
        ["run", "--rm"] => {}
        ["stop", _] | ["start", _] => {
            let mut about = state
                .read("containers", last)
                .unwrap_or_else(|| missing("container: it"));
            about["running"] = json!(words[0] == "start");
            state.write("containers", last, &about);
        }
        ["wait", name] => {
            while state
                .read("containers", name)
                .is_some_and(|about| about["running"] == true)
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            println!("137");
        }
        ["volume", "create"] => {
            // An engine returns the one that is there.
            if state.read("volumes", last).is_none() {
                state.write("volumes", last, &json!({"labels": labels_of(words)}));
            }
            println!("{last}");
        }
        ["volume", "ls"] => {
            let names = state.labelled("volumes", after(words, "--filter").unwrap());
            names.iter().for_each(|name| println!("{name}"));
        }
        ["volume", "inspect"] => {
            let found: Vec<Value> = words[2..]
                .iter()
                .filter_map(|name| {
                    Some(json!({"Name": name, "Labels": state.read("volumes", name)?["labels"]}))
                })
                .collect();
            println!("{}", json!(found));
        }
        ["volume", "rm"] => {
            for name in &words[3..] {
                state.remove("volumes", name);
            }
        }
        ["image", "inspect"] => {
            if state.read("images", last).is_none() {
                missing(&format!("image: {last}"));
            }
        }
        ["load", "-i"] => state.write(
            "images",
            &repo_tag(last),
            &json!({"labels": {"dev.harness.image": "x"}}),
        ),
        ["images", ..] => {
            let names = state.labelled("images", after(words, "--filter").unwrap());
            names.iter().for_each(|name| println!("{name}"));
        }
        ["rmi", name] => {
            if !state.remove("images", name) {
                missing("image: it");
            }
        }
        _ => panic!("an engine that knows no {words:?}"),
    }
}

fn described(name: &str, about: &Value) -> Value {
    let number = about["number"].as_u64().unwrap();
    let running = about["running"] == true;
    json!({
        "Name": format!("/{name}"),
        "State": {"Running": running, "Status": if running { "running" } else { "exited" }, "ExitCode": about["exit"], "OOMKilled": false},
        "Config": {"Labels": about["labels"]},
        "NetworkSettings": {"Networks": {"kind": {
            "IPAddress": if running { format!("172.18.0.{}", number + 2) } else { String::new() },
            "GlobalIPv6Address": if running { format!("fc00:f853:ccd:e793::{}", number + 2) } else { String::new() },
        }}},
    })
}

fn outside(state: &State, words: &[&str]) {
    let name = after(words, "--name").unwrap();
    let at = words
        .iter()
        .position(|word| *word == "--pull=never")
        .unwrap();
    if state.read("images", words[at + 1]).is_none() {
        missing(&format!("image: {}", words[at + 1]));
    }
    state.container(name, labels_of(words), true, 100);
    let mut line = String::new();
    // It answers what it is told, and ends when nobody speaks to it any more.
    while io::stdin().read_line(&mut line).unwrap() > 0 {
        print!("{} heard {line}", words[at + 2..].join(" "));
        io::stdout().flush().unwrap();
        line.clear();
    }
    state.remove("containers", name);
}
