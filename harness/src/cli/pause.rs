//! `--pause-on-failure`: where somebody looks around in the world of a failed attempt.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::FutureExt as _;
use netlab::{Process, ProcessSpec};
use tokio::signal::unix::{SignalKind, signal};

use super::{cluster::shell, print, repro::is_interactive};
use crate::run::pause::{self, Paused};

/// From now on the first failure is shown, on this node or the first.
pub(super) fn arrange(node: Option<String>) {
    let shown = Arc::new(AtomicBool::new(false));
    pause::on_failure(Box::new(move |paused| {
        let (node, shown) = (node.clone(), shown.clone());
        async move {
            // Others that run side by side with it may fail, too; there is one terminal.
            if !shown.swap(true, Ordering::Relaxed) {
                show(&paused, node).await;
            }
        }
        .boxed()
    }));
}

async fn show(paused: &Paused<'_>, node: Option<String>) {
    let nodes: Vec<&str> = paused
        .cluster
        .stage()
        .nodes()
        .iter()
        .map(|node| node.name.as_str())
        .collect();
    let first = nodes.first().copied().unwrap_or_default();
    let node = node
        .as_deref()
        .filter(|node| nodes.contains(node))
        .unwrap_or(first);
    // Somebody has to be there for others to enter; they end with the world.
    let mut doors = Vec::new();
    for node in &nodes {
        let spec = ProcessSpec {
            argv: vec!["sleep".into(), "infinity".into()],
            ..ProcessSpec::default()
        };
        doors.push((*node, paused.cluster.world().spawn(node, spec).await.ok()));
    }
    print(&text(paused, &doors));
    if is_interactive() {
        print(&format!(
            "this shell is on {node}, KUBECONFIG is set; leave it and everything is gone\n"
        ));
        let command = vec!["/bin/sh".to_owned(), "-i".to_owned()];
        if let Err(error) = shell(paused.cluster, node, command).await {
            eprintln!("the shell cannot be opened: {error}");
        }
    } else {
        until_told("the world stays until Ctrl-C or SIGTERM\n").await;
    }
}

fn text(paused: &Paused<'_>, doors: &[(&str, Option<Process>)]) -> String {
    let mut text = format!(
        "\npaused: {} failed, and its world is still up\n",
        paused.case
    );
    if let Some(evidence) = paused.evidence {
        let _ = writeln!(text, "  evidence  {}", evidence.display());
    }
    for (node, door) in doors {
        let file = |name: &str| {
            let path = paused.evidence?.join("nodes").join(node).join(name);
            path.is_file().then_some(path)
        };
        let _ = writeln!(text, "  {node}");
        for (what, file) in [
            ("ruleset", file("ruleset.txt")),
            ("packets", file("packets.pcap")),
            ("log", file("candidate.log")),
        ] {
            if let Some(file) = file {
                let _ = writeln!(text, "    {what:<8}{}", file.display());
            }
        }
        if let Some(door) = door.as_ref().filter(|door| door.pid() > 0) {
            let _ = writeln!(
                text,
                "    enter   nsenter --target {} --user --preserve-credentials --mount --net --uts --pid",
                door.pid()
            );
        }
    }
    text
}

/// The first signal that ends a run ends the pause, too. Says what it waits for once it would hear it.
async fn until_told(what: &str) {
    let (Ok(mut pressed), Ok(mut told)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    print(what);
    tokio::select! {
        _ = pressed.recv() => {}
        _ = told.recv() => {}
    }
}
