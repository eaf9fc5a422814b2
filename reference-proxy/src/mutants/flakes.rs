//! Planted flakes: faults that show in some worlds only, with a known probability, and one that shows only without a CPU.
//!
//! They test what the harness says about failures that come and go (`harness selftest --flakes`), and are no part of the list that every scenario
//! is measured by: no single attempt has to notice them.
//!
//! A world throws one coin, whatever the number of its nodes. It is the authority that signs the API server's certificate: made anew for each
//! world, the same for all proxies in it, and for a proxy that is restarted.

use std::{
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hasher as _},
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};

use super::{Fault, fault};
use crate::{
    compile::FrontendKind,
    model::{Service, ServiceKey},
    ruleset::Frontend,
};

type Frontends = Vec<(Frontend, FrontendKind, usize)>;

/// CPU time that a part of the starving fault's work takes: several turns of any scheduler.
const WORK: Duration = Duration::from_millis(20);

/// Parts of that work for each Service. Each has to wait: others who want a CPU for a moment are no contention that lasts.
const PARTS: usize = 3;

/// The proxy counts as starved when it has waited for a CPU for more than this share of the time that its work took. On a quiet machine it waits for
/// little of it; one that shares each CPU with four busy threads waits for four fifths.
const STARVED: f64 = 0.65;

/// A fault that does not always show.
pub(super) struct Planted {
    /// The fault.
    pub(super) fault: Fault,
    /// In which part of all worlds it shows; `None` for one that depends on the machine.
    pub(super) rate: Option<f64>,
}

pub(super) fn all() -> Vec<Planted> {
    vec![
        Planted {
            rate: Some(0.2),
            fault: fault! {
                "flake-20": "In 20 % of all worlds, no Service is served.";
                bugs [];
                violates ["SVC-CIP-1"];
                does {
                    fn frontends(&self, _key: &ServiceKey, _service: &Service, frontends: &mut Frontends) {
                        lose(frontends, coin() < 0.2);
                    }
                }
            },
        },
        Planted {
            rate: Some(0.05),
            fault: fault! {
                "flake-5": "In 5 % of all worlds, no Service is served.";
                bugs [];
                violates ["SVC-CIP-1"];
                does {
                    fn frontends(&self, _key: &ServiceKey, _service: &Service, frontends: &mut Frontends) {
                        lose(frontends, coin() < 0.05);
                    }
                }
            },
        },
        Planted {
            rate: Some(0.01),
            fault: fault! {
                "flake-1": "In 1 % of all worlds, no Service is served.";
                bugs [];
                violates ["SVC-CIP-1"];
                does {
                    fn frontends(&self, _key: &ServiceKey, _service: &Service, frontends: &mut Frontends) {
                        lose(frontends, coin() < 0.01);
                    }
                }
            },
        },
        Planted {
            rate: None,
            fault: fault! {
                "starved-forgets": "A Service is not served if the proxy has to wait for a CPU most of the time while it works on it.";
                bugs [];
                violates ["SVC-CIP-1"];
                does {
                    fn frontends(&self, _key: &ServiceKey, _service: &Service, frontends: &mut Frontends) {
                        lose(frontends, (0..PARTS).all(|_| work(WORK) > STARVED));
                    }
                }
            },
        },
    ]
}

fn lose(frontends: &mut Frontends, all: bool) {
    if all {
        frontends.clear();
    }
}

/// The world's coin: evenly distributed from 0 to 1.
///
/// # Panics
///
/// There is no `--kubeconfig` with an authority in it: a flake that never shows would test nothing.
fn coin() -> f64 {
    static COIN: OnceLock<f64> = OnceLock::new();
    *COIN.get_or_init(|| {
        let path = kubeconfig(std::env::args_os()).expect("planted flakes need --kubeconfig");
        let text = fs::read_to_string(path).expect("a kubeconfig that can be read");
        let authority = authority(&text).expect("a kubeconfig with certificate-authority-data");
        evenly(authority)
    })
}

fn kubeconfig(args: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut args = args.skip_while(|arg| !arg.to_string_lossy().starts_with("--kubeconfig"));
    let arg = args.next()?;
    match arg.to_string_lossy().split_once('=') {
        Some((_, path)) => Some(path.into()),
        None => args.next().map(PathBuf::from),
    }
}

/// The value of `certificate-authority-data`, in JSON or YAML. The rest of the file differs from node to node.
fn authority(kubeconfig: &str) -> Option<&str> {
    let (_, rest) = kubeconfig.split_once("certificate-authority-data")?;
    let begins = |c: char| c.is_ascii_alphanumeric();
    let value = &rest[rest.find(begins)?..];
    let ends = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='));
    value.split(ends).next().filter(|value| value.len() > 64)
}

fn evenly(text: &str) -> f64 {
    // Without a key of its own: every proxy of a world gets the same.
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Works until this thread has used so much CPU time; the share of the time that it took in which there was no CPU to be had.
///
/// # Panics
///
/// The kernel does not say how long threads wait for a CPU.
fn work(cpu: Duration) -> f64 {
    let used = || {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
            .map(Duration::from)
            .expect("every thread has this clock")
    };
    let (began, before) = (used(), waited());
    while used() - began < cpu {
        std::hint::spin_loop();
    }
    let (ran, waited) = (used() - began, waited() - before);
    waited.as_secs_f64() / (ran + waited).as_secs_f64()
}

/// How long this thread has been ready to run without a CPU, since its start.
fn waited() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with schedstat");
    let nanoseconds = text.split_whitespace().nth(1).and_then(|n| n.parse().ok());
    Duration::from_nanos(nanoseconds.expect("three numbers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJkVENDQVJ1Z0F3SUJBZ0lVYQ==";

    #[test]
    fn all_nodes_of_a_world_have_one_coin() {
        let json = |token: &str| {
            format!(
                "{{\"clusters\": [{{\"cluster\": {{\"certificate-authority-data\": \"{CA}\", \"server\": \"https://x\"}}}}], \
                 \"users\": [{{\"user\": {{\"token\": \"{token}\"}}}}]}}"
            )
        };
        assert_eq!(authority(&json("one")), Some(CA));
        assert_eq!(authority(&json("one")), authority(&json("two")));
        let yaml = format!("    certificate-authority-data: {CA}\n    server: https://x\n");
        assert_eq!(authority(&yaml), Some(CA));
        assert_eq!(authority("certificate-authority: /etc/ca.crt\n"), None);
    }

    #[test]
    fn the_kubeconfig_is_found_in_both_spellings() {
        for args in [
            &["proxy", "--kubeconfig=/a/b", "--node-name=n"][..],
            &["proxy", "--node-name=n", "--kubeconfig", "/a/b"],
        ] {
            let found = kubeconfig(args.iter().map(OsString::from));
            assert_eq!(found, Some("/a/b".into()), "{args:?}");
        }
        assert_eq!(kubeconfig(["proxy"].iter().map(OsString::from)), None);
    }

    #[test]
    fn coins_are_even() {
        const WORLDS: usize = 20_000;
        let coins = (0..WORLDS).map(|world| evenly(&format!("{CA}{world}")));
        let coins: Vec<f64> = coins.collect();
        for rate in [0.01, 0.05, 0.2, 0.5] {
            let below = coins.iter().filter(|coin| **coin < rate).count() as f64;
            let mean = rate * WORLDS as f64;
            // The numbers are always the same; five standard deviations are far out for any hash that is fit for this.
            assert!((below - mean).abs() < 5.0 * mean.sqrt(), "{rate}: {below}");
        }
    }

    #[test]
    fn waiting_is_some_part_of_the_time() {
        let share = work(Duration::from_millis(5));
        assert!((0.0..1.0).contains(&share), "{share}");
    }
}
