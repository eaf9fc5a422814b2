//! A served API and clients for it.

use std::net::TcpListener;
use std::pin::Pin;
use std::time::Duration;

use apiserver::{ApiServer, Config, Faults, Gateway, GatewayConfig, Serving};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{AsyncBufRead, AsyncBufReadExt};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

/// The longest anything here may take. Reached only when something is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub struct Cluster {
    pub server: ApiServer,
    pub serving: Serving,
    /// What clients talk to instead.
    pub front: Option<Front>,
}

/// A gateway with its listener.
pub struct Front {
    pub gateway: Gateway,
    pub serving: Serving,
    certificate_pem: String,
}

impl Cluster {
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    pub fn with(config: Config) -> Self {
        let server = ApiServer::new(config).unwrap();
        let serving = server
            .serve(TcpListener::bind("127.0.0.1:0").unwrap())
            .unwrap();
        Cluster {
            server,
            serving,
            front: None,
        }
    }

    /// With a gateway before it.
    pub fn behind_gateway() -> Self {
        let mut cluster = Self::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap();
        let certificate_pem = certificate.self_signed(&key).unwrap().pem();
        let gateway = Gateway::new(&GatewayConfig {
            upstream: format!("https://{}", cluster.serving.address()),
            server_name: "kubernetes".into(),
            ca_pem: cluster.server.ca_pem().into(),
            certificate_pem: certificate_pem.clone(),
            key_pem: key.serialize_pem(),
        })
        .unwrap();
        let serving = gateway
            .serve(TcpListener::bind("127.0.0.1:0").unwrap())
            .unwrap();
        cluster.front = Some(Front {
            gateway,
            serving,
            certificate_pem,
        });
        cluster
    }

    /// The faults of what clients talk to.
    pub fn faults(&self) -> &Faults {
        match &self.front {
            Some(front) => front.gateway.faults(),
            None => self.server.faults(),
        }
    }

    pub async fn client(&self, user: &str) -> Client {
        let front = self.front.as_ref();
        let serving = front.map_or(&self.serving, |front| &front.serving);
        let mut kubeconfig: Value =
            serde_json::from_str(&self.server.kubeconfig(user, serving.address())).unwrap();
        if let Some(front) = front {
            kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"] =
                json!(STANDARD.encode(&front.certificate_pem));
        }
        let kubeconfig = Kubeconfig::from_yaml(&kubeconfig.to_string()).unwrap();
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .unwrap();
        // The tests want to see each answer, the injected ones above all.
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    /// The lines of a watch, as they are on the wire.
    pub async fn watch(&self, user: &str, path: &str) -> Lines {
        let client = self.client(user).await;
        let stream = client
            .request_stream(http::Request::get(path).body(Vec::new()).unwrap())
            .await
            .unwrap();
        Lines {
            stream: Box::pin(stream),
            _client: client,
        }
    }

    /// The body of a GET, whatever its status.
    pub async fn get(&self, user: &str, path: &str) -> Value {
        let client = self.client(user).await;
        match client
            .request::<Value>(http::Request::get(path).body(Vec::new()).unwrap())
            .await
        {
            Ok(value) => value,
            Err(kube::Error::Api(status)) => serde_json::to_value(&*status).unwrap(),
            Err(error) => panic!("{path}: {error:?}"),
        }
    }
}

pub struct Lines {
    stream: Pin<Box<dyn AsyncBufRead + Send>>,
    _client: Client,
}

impl Lines {
    /// The next event, or nothing when the watch ended, or an error when its connection broke.
    pub async fn try_next(&mut self) -> std::io::Result<Option<Value>> {
        let mut line = String::new();
        let read = tokio::time::timeout(DEADLINE, self.stream.read_line(&mut line)).await;
        match read.expect("a watch event or the watch's end")? {
            0 => Ok(None),
            _ => Ok(Some(serde_json::from_str(&line).unwrap())),
        }
    }

    pub async fn next(&mut self) -> Value {
        self.try_next().await.unwrap().expect("the watch goes on")
    }

    /// The next event's type and object's name.
    pub async fn next_name(&mut self) -> (String, String) {
        let event = self.next().await;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }
}

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"k": "v"}})
}

pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

pub fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}
