//! kube-proxy as kind installs it, made to go through the gateway and able to be kept off nodes, as any candidate of our installing is.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use rollout::{Progress, Rollout, Workload};
use serde_json::{Value, json};

use super::{
    super::{ClusterError, infra},
    install::{keep_off, let_on},
    opening::Told,
};

/// Names that kubeadm gives (`cmd/kubeadm/app/phases/addons/proxy`).
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-proxy";
const KUBECONFIG: &str = "kubeconfig.conf";

/// One node after the other ends an old Pod and starts a new one.
const ROLLED_OUT: Duration = Duration::from_secs(180);

/// What it is to be again. A run that was killed may have left it as that run wanted it, so it is not taken for granted how it was found.
pub struct OwnProxy {
    client: Client,
    run: String,
    kubeconfig: String,
    affinity: Value,
}

impl std::fmt::Debug for OwnProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("kube-proxy on its way through the gateway")
    }
}

impl OwnProxy {
    /// Lets it speak to `url` in place of `own`, and waits until it does on every node.
    ///
    /// # Errors
    /// [`ClusterError::Infra`] where it is not what kubeadm installs; [`ClusterError::Candidate`] where it does not get ready again.
    pub async fn reroute(
        client: &Client,
        run: &str,
        own: &str,
        url: &str,
        told: &Told,
    ) -> Result<Self, ClusterError> {
        let what = "kube-proxy as kind installs it";
        let config = configs(client).get(NAME).await;
        let config = config.map_err(|error| infra(what)(&error))?;
        let data = config.data.unwrap_or_default();
        let kubeconfig = data.get(KUBECONFIG).cloned();
        let kubeconfig =
            kubeconfig.ok_or_else(|| infra(what)(&format!("its ConfigMap has no {KUBECONFIG}")))?;
        let with = |url: &str| {
            let changed = with_server(&kubeconfig, url);
            changed.ok_or_else(|| infra(what)(&format!("its {KUBECONFIG} names no server")))
        };
        let (changed, kubeconfig) = (with(url)?, with(own)?);
        let set = sets(client).get(NAME).await;
        let set = set.and_then(|set| serde_json::to_value(set).map_err(kube::Error::SerdeError));
        let mut set = set.map_err(|error| infra(what)(&error))?;
        let place = "/spec/template/spec/affinity";
        let_on(&mut set);
        let affinity = set.pointer(place).cloned().unwrap_or(Value::Null);
        keep_off(&mut set);
        let own = Self {
            client: client.clone(),
            run: run.into(),
            kubeconfig,
            affinity,
        };
        let kept_off = set.pointer(place).cloned().unwrap_or(Value::Null);
        own.set(&changed, &kept_off, told).await?;
        Ok(own)
    }

    /// Puts it back.
    ///
    /// # Errors
    /// What is not as it was.
    pub async fn restore(&self, told: &Told) -> Result<(), String> {
        let set = self.set(&self.kubeconfig, &self.affinity, told).await;
        set.map_err(|error| error.to_string())
    }

    async fn set(
        &self,
        kubeconfig: &str,
        affinity: &Value,
        told: &Told,
    ) -> Result<(), ClusterError> {
        let what = "kube-proxy cannot be changed";
        let params = PatchParams::default();
        let patch = Patch::Merge(json!({"data": {KUBECONFIG: kubeconfig}}));
        let patched = configs(&self.client).patch(NAME, &params, &patch).await;
        patched.map_err(|error| infra(what)(&error))?;
        // It reads its configuration when it starts, so another one is another template.
        let mark = format!(
            "{} {:016x}",
            self.run,
            xxhash_rust::xxh3::xxh3_64(kubeconfig.as_bytes())
        );
        let patch = Patch::Merge(json!({"spec": {"template": {
            "metadata": {"annotations": {"dev.harness/configuration": mark}},
            "spec": {"affinity": affinity},
        }}}));
        let patched = sets(&self.client).patch(NAME, &params, &patch).await;
        patched.map_err(|error| infra(what)(&error))?;
        let tell =
            |progress: Progress| told.waits(&format!("{}: {}", progress.what, progress.state));
        let workload = Workload::DaemonSet {
            namespace: NAMESPACE.into(),
            name: NAME.into(),
        };
        let rollout = Rollout::new(self.client.clone(), &self.run);
        rollout.wait(&[workload], ROLLED_OUT, &tell).await?;
        Ok(())
    }
}

fn configs(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn sets(client: &Client) -> Api<DaemonSet> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// The same kubeconfig with another server.
fn with_server(kubeconfig: &str, url: &str) -> Option<String> {
    let mut found = false;
    let lines = kubeconfig.lines().map(|line| {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        if rest.starts_with("server:") {
            found = true;
            format!("{indent}server: {url}\n")
        } else {
            format!("{line}\n")
        }
    });
    let text: String = lines.collect();
    found.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_server_and_nothing_else() {
        let text = "kind: Config\nclusters:\n- cluster:\n    certificate-authority: /ca.crt\n    server: https://x:6443\n  name: default\n";
        let changed = with_server(text, "https://x:16443").unwrap();
        assert_eq!(changed, text.replace("6443", "16443"));
        assert_eq!(with_server("kind: Config\n", "https://x:16443"), None);
    }
}
