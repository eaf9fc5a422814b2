//! Serves an empty cluster on the loopback address until it is interrupted.
//!
//! `cargo run -p apiserver --example serve -- 6443 /tmp/kubeconfig`, then `KUBECONFIG=/tmp/kubeconfig kubectl get svc`.

use std::net::TcpListener;

use apiserver::{ApiServer, Config};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().as_deref().unwrap_or("6443").parse()?;
    let path = arguments.next().unwrap_or_else(|| "kubeconfig".to_owned());
    let server = ApiServer::new(Config::default())?;
    let serving = server.serve(TcpListener::bind(("127.0.0.1", port))?)?;
    std::fs::write(&path, server.kubeconfig("admin", serving.address()))?;
    println!(
        "serving on https://{}; KUBECONFIG={path}",
        serving.address()
    );
    std::future::pending::<()>().await;
    Ok(())
}
