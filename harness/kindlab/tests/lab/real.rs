//! The same with a real kind and a real engine. Each makes a cluster, which takes most of a minute.

use std::time::Duration;

use kindlab::{CallLog, ClusterSpec, Kind, Options, Role};

/// The tests, by name.
pub const ALL: &[(&str, fn())] = &[(
    "a_real_cluster_lives_and_leaves_nothing",
    a_real_cluster_lives_and_leaves_nothing,
)];

fn a_real_cluster_lives_and_leaves_nothing() {
    let Ok(image) = std::env::var("HARNESS_KIND_IMAGE") else {
        println!("skipped: HARNESS_KIND_IMAGE names no node image that is in the container engine");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let log = CallLog::new();
        let kind = Kind::find(Options {
            log: log.clone(),
            ..Options::default()
        })
        .await
        .unwrap();
        let spec = ClusterSpec {
            image: Some(image),
            workers: 1,
            ..ClusterSpec::default()
        };
        let cluster = kind
            .create(spec)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", log.text()));
        let nodes = cluster.check_nodes().await.unwrap();
        assert_eq!(
            nodes.iter().map(|node| node.role).collect::<Vec<_>>(),
            [Role::ControlPlane, Role::Worker]
        );
        assert!(
            nodes
                .iter()
                .all(|node| node.ipv4.is_some() && node.ipv6.is_some()),
            "{nodes:?}"
        );
        let ran = cluster
            .node_exec(&nodes[1].name, &["hostname"], None, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(ran.text().trim(), nodes[1].name);
        let name = cluster.name().to_owned();
        cluster.delete().await.unwrap();
        assert!(!kind.clusters().await.unwrap().contains(&name));
    });
}
