//! Whether a spec failed because one of its Pods never got its image: then it says nothing about the proxy.
//!
//! Such a spec waits for its Pod, for 300 s, and then fails with what it was doing at that time, which often looks like a failure of the data path.
//! The image is named in two places: in the status of the Pod, where the failure shows it, and in the events of the spec's namespace, which the
//! framework lists after each failure:
//!
//! ```text
//!   At 2026-11-26 16:05:35 +0000 UTC - event for boom-server: {kubelet node2} Failed: Failed to pull image "...": ... no such host
//! ```
//!
//! An image that was pulled later is no reason. Nor is one that the suite has to see that it cannot be had.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::Regex;

use super::images::is_meant_to_be_missing;

/// Why a container waits that cannot have its image (kubelet `pkg/kubelet/images/types.go`).
pub const REASONS: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// An image that a Pod of a spec waited for in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// The image.
    pub image: String,
    /// What was said about it: by the kubelet in an event, or the reason in the Pod's status.
    pub said: String,
}

impl Lack {
    /// For a report, in one line.
    pub fn reason(&self) -> String {
        format!("the image {} could not be had: {}", self.image, self.said)
    }
}

/// The image for want of which a spec failed: by what it says about the failure, and by everything that was written while it ran.
pub fn lack(failure: &str, log: &str) -> Option<Lack> {
    let by_events = events(log);
    let by_status = status(failure);
    match (by_status, by_events) {
        // The event has the longer message.
        (Some(status), events) => {
            let event = events.into_iter().find(|event| event.image == status.image);
            Some(event.unwrap_or(status))
        }
        (None, events) => events.into_iter().next(),
    }
}

/// From the status of a Pod that a failure shows, as YAML or as Go writes structures.
fn status(failure: &str) -> Option<Lack> {
    static REASON: LazyLock<Regex> = LazyLock::new(|| {
        let any = REASONS.join("|");
        Regex::new(&format!(r#"(?i:reason: ?"?)({any})\b"#)).expect("an expression")
    });
    static IMAGE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(?i)image \\?"([^"\\\s]+)\\?""#).expect("an expression"));
    // YAML breaks long lines.
    let text = failure.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = REASON.captures(&text)?.get(1)?;
    // The message is in front of the reason or behind it; what is nearest belongs to it.
    let image = IMAGE
        .captures_iter(&text)
        .filter_map(|found| found.get(1))
        .filter(|image| !is_meant_to_be_missing(image.as_str()))
        .min_by_key(|image| image.start().abs_diff(reason.start()))?;
    Some(Lack {
        image: image.as_str().to_owned(),
        said: reason.as_str().to_owned(),
    })
}

/// From the events that the framework lists: the images that Pods did not have in the end, in the order in which they were missed.
fn events(log: &str) -> Vec<Lack> {
    static EVENT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"event for (\S+): \{[^}]*\} (\w+): (.*)").expect("an expression")
    });
    static IMAGE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"image "([^"]+)""#).expect("an expression"));
    let mut all: Vec<Lack> = Vec::new();
    let mut places: BTreeMap<(String, String), Option<usize>> = BTreeMap::new();
    for line in log.lines() {
        let Some(found) = EVENT.captures(line) else {
            continue;
        };
        let (pod, reason, message) = (&found[1], &found[2], found[3].trim());
        let Some(image) = IMAGE.captures(message).map(|found| found[1].to_owned()) else {
            continue;
        };
        let key = (pod.to_owned(), image.clone());
        match reason {
            "Pulled" => {
                places.insert(key, None);
            }
            "Failed" | "BackOff" | "ErrImageNeverPull" | "InspectFailed"
                if !is_meant_to_be_missing(&image) =>
            {
                // The first message says why; those after it, that it is tried again.
                let known = places.get(&key).copied().flatten();
                if known.is_none() {
                    all.push(Lack {
                        image,
                        said: message.to_owned(),
                    });
                    places.insert(key, Some(all.len() - 1));
                }
            }
            _ => {}
        }
    }
    let left: Vec<usize> = places.into_values().flatten().collect();
    let kept = all.into_iter().enumerate();
    kept.filter(|(at, _)| left.contains(at))
        .map(|(_, lack)| lack)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of what a spec of Kubernetes 1.36.2 said on a kind cluster whose nodes did not have the image, shortened.
    const FAILURE: &str = r#"[FAILED] Timed out after 300.001s.
expected pod to be running and ready, got instead:
    <*v1.Pod | 0x33d56d6ba508>:
        metadata:
          labels:
            app: boom-server
        spec:
          containers:
          - image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
            imagePullPolicy: IfNotPresent
        status:
          containerStatuses:
          - image: registry.k8s.io/e2e-test-images/regression-issue-74839:1.5
            name: boom-server
            state:
              waiting:
                message: 'Back-off pulling
                  image "registry.k8s.io/e2e-test-images/regression-issue-74839:1.5":
                  ErrImagePull: failed to pull and unpack image "registry.k8s.io/e2e-test-images/regression-issue-74839:1.5":
                  dial tcp: lookup registry.k8s.io on 172.17.0.1:53: server misbehaving'
                reason: ImagePullBackOff
          phase: Pending
In [It] at: k8s.io/kubernetes/test/e2e/network/conntrack.go:603 @ 11/26/26 16:10:25.05
"#;

    const PULLING: &str = r#"  I1126 16:10:25.081533   12975 dump.go:53] At 2026-11-26 16:05:24 +0000 UTC - event for pod-client: {kubelet node1} Pulled: Container image "r.example/agnhost:1" already present on machine and can be accessed by the pod
  I1126 16:10:25.081535   12975 dump.go:53] At 2026-11-26 16:05:27 +0000 UTC - event for boom-server: {kubelet node2} Pulling: Pulling image "r.example/boom:1.5"
"#;
    const FAILED: &str = r#"  I1126 16:10:25.081541   12975 dump.go:53] At 2026-11-26 16:05:35 +0000 UTC - event for boom-server: {kubelet node2} Failed: Failed to pull image "r.example/boom:1.5": dial tcp: server misbehaving
  I1126 16:10:25.081549   12975 dump.go:53] At 2026-11-26 16:05:35 +0000 UTC - event for boom-server: {kubelet node2} Failed: Error: ErrImagePull
  I1126 16:10:25.081555   12975 dump.go:53] At 2026-11-26 16:05:36 +0000 UTC - event for boom-server: {kubelet node2} BackOff: Back-off pulling image "r.example/boom:1.5"
"#;
    const LATER: &str = r#"  Nov 26 16:05:50.000: INFO: At 2026-11-26 16:05:50 +0000 UTC - event for boom-server: {kubelet node2} Pulled: Successfully pulled image "r.example/boom:1.5" in 8s
"#;

    #[test]
    fn the_status_of_the_pod_names_the_image() {
        let found = lack(FAILURE, "").unwrap();
        assert_eq!(
            found.image,
            "registry.k8s.io/e2e-test-images/regression-issue-74839:1.5"
        );
        assert_eq!(found.said, "ImagePullBackOff");
        // As older versions write it.
        let go = r#"State:{Waiting:&ContainerStateWaiting{Reason:ErrImageNeverPull,Message:Container image "r.example/a:1" is not present with pull policy of Never,}}"#;
        assert_eq!(lack(go, "").unwrap().said, "ErrImageNeverPull");
    }

    #[test]
    fn events_name_it_where_the_failure_is_about_something_else() {
        let looks_like_the_data_path = "[FAILED] expected 3 endpoints, got 2";
        let found = lack(looks_like_the_data_path, &[PULLING, FAILED].concat()).unwrap();
        assert_eq!(
            found.reason(),
            "the image r.example/boom:1.5 could not be had: Failed to pull image \"r.example/boom:1.5\": dial tcp: server misbehaving"
        );
        // Both: the same image, and the longer message.
        let both = FAILURE.replace(
            "registry.k8s.io/e2e-test-images/regression-issue-74839",
            "r.example/boom",
        );
        assert_eq!(lack(&both, FAILED).unwrap(), found);
    }

    #[test]
    fn a_failure_that_has_nothing_to_do_with_images_stays_one() {
        let told = "[FAILED] service verification failed for: 10.96.246.176";
        for log in [
            "",
            PULLING,
            // It came in the end.
            &[PULLING, FAILED, LATER].concat(),
            // A container that crashes backs off, too.
            "event for p: {kubelet n} BackOff: Back-off restarting failed container c in pod p_ns(uid)",
            // That is what the image is for.
            r#"event for p: {kubelet n} Failed: Failed to pull image "invalid.registry.k8s.io/invalid/alpine:3.1": no such host"#,
        ] {
            assert_eq!(lack(told, log), None, "{log}");
        }
        let running = FAILURE.replace("reason: ImagePullBackOff", "reason: PodInitializing");
        assert_eq!(lack(&running, ""), None);
    }
}
