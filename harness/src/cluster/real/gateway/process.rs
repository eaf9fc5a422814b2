//! The gateway's process, in a Pod on a node of the control plane. It ends with its standard input.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    process::ExitCode,
};

use apiserver::{Gateway, GatewayConfig, Serving};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::wire::{Answer, Ask, Config, Seen};

/// `harness gateway CONFIG`.
pub fn main(config: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let served = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(serve(config)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: &str) -> Result<(), String> {
    let config: Config = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let read = |name: &str| {
        let path = config.pki.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let gateway = Gateway::new(&GatewayConfig {
        upstream: config.upstream.clone(),
        server_name: config.server_name.clone(),
        ca_pem: read("ca.crt")?,
        certificate_pem: read("apiserver.crt")?,
        key_pem: read("apiserver.key")?,
    });
    let gateway = gateway.map_err(|error| error.to_string())?;
    let (first, last) = config.ports;
    let mut problem = "no port is allowed".to_owned();
    let listener = (first..=last).find_map(|port| {
        let listener = listen(port);
        listener.map_err(|error| problem = error.to_string()).ok()
    });
    let listener =
        listener.ok_or_else(|| format!("no port of {first} to {last} is free: {problem}"))?;
    let port = listener.local_addr().map_err(|error| error.to_string())?;
    let serving = gateway.serve(listener).map_err(|error| error.to_string())?;
    let mut process = Process {
        gateway,
        port: port.port(),
        serving: Some(serving),
    };
    let mut out = tokio::io::stdout();
    let mut answer = Answer::Serves(process.port);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let mut line = serde_json::to_string(&answer).map_err(|error| error.to_string())?;
        line.push('\n');
        let written = out.write_all(line.as_bytes()).await;
        written.map_err(|error| error.to_string())?;
        out.flush().await.map_err(|error| error.to_string())?;
        let Some(line) = lines
            .next_line()
            .await
            .map_err(|error: std::io::Error| error.to_string())?
        else {
            return Ok(());
        };
        answer = match serde_json::from_str(&line) {
            Ok(ask) => process.answer(ask).await,
            Err(error) => Answer::Failed(error.to_string()),
        };
    }
}

/// At all addresses of both families, or of the one that there is.
fn listen(port: u16) -> std::io::Result<TcpListener> {
    let six = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    TcpListener::bind(six)
        .or_else(|_| TcpListener::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)))
}

struct Process {
    gateway: Gateway,
    port: u16,
    serving: Option<Serving>,
}

impl Process {
    async fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Throw(switch) => Answer::Done(self.gateway.faults().throw(&switch)),
            Ask::Look => Answer::Seen(Seen {
                report: self.gateway.faults().report(),
                watches: self.gateway.watches(),
            }),
            Ask::Stop => match self.serving.take() {
                Some(serving) => Answer::Done(serving.close().await),
                None => Answer::Done(0),
            },
            Ask::Resume if self.serving.is_some() => Answer::Done(0),
            Ask::Resume => {
                let listener = listen(self.port).map_err(|error| error.to_string());
                let serving = listener.and_then(|listener| {
                    let serving = self.gateway.serve(listener);
                    serving.map_err(|error| error.to_string())
                });
                match serving {
                    Ok(serving) => {
                        self.serving = Some(serving);
                        Answer::Done(0)
                    }
                    Err(error) => Answer::Failed(format!("port {}: {error}", self.port)),
                }
            }
        }
    }
}
