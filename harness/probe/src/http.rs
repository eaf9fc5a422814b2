//! A `GET` over HTTP/1.1, as small as health checks and metrics need it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::ports;
use crate::proto::HttpResponse;

/// Largest answer taken.
const MAX_ANSWER: u64 = 32 << 20;

/// Gets `path` from `host`.
pub(crate) async fn get(
    host: SocketAddr,
    path: &str,
    timeout_ms: u32,
) -> anyhow::Result<HttpResponse> {
    let limit = Duration::from_millis(timeout_ms.into());
    let bytes = tokio::time::timeout(limit, exchange(host, path))
        .await
        .with_context(|| format!("no complete answer from {host} within {limit:?}"))??;
    parse(&bytes)
}

async fn exchange(host: SocketAddr, path: &str) -> anyhow::Result<Vec<u8>> {
    if !path.starts_with('/') || path.contains(|c: char| c.is_ascii_control() || c == ' ') {
        bail!("path {path:?} is not a path");
    }
    let connected = match TcpStream::connect(host).await {
        // All ephemeral ports are taken; the agent has others.
        Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => from_fresh_port(host).await,
        connected => connected,
    };
    let mut stream = connected.with_context(|| format!("cannot connect to {host}"))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    // Read with its own loop: a server may reset the connection after a complete answer.
    let mut limited = (&mut stream).take(MAX_ANSWER);
    loop {
        match limited.read_buf(&mut bytes).await {
            Ok(0) => return Ok(bytes),
            Ok(_) => {}
            Err(_) if !bytes.is_empty() => return Ok(bytes),
            Err(e) => return Err(e).with_context(|| format!("{host} closed without an answer")),
        }
    }
}

async fn from_fresh_port(host: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(host), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    ports::bind(&socket, ports::unspecified(host.ip()))?;
    TcpSocket::from_std_stream(socket.into())
        .connect(host)
        .await
}

fn parse(bytes: &[u8]) -> anyhow::Result<HttpResponse> {
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .context("answer without a complete header")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .with_context(|| format!("answer begins with {status_line:?}"))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |name| {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    let rest = &bytes[end + 4..];
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        unchunk(rest)?
    } else if let Some(length) = header("content-length") {
        let length: usize = length.parse().context("content-length is not a number")?;
        rest.get(..length)
            .with_context(|| format!("body has {} of {length} bytes", rest.len()))?
            .to_vec()
    } else {
        rest.to_vec()
    };
    Ok(HttpResponse {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn unchunk(mut bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let line = bytes
            .windows(2)
            .position(|w| w == b"\r\n")
            .context("chunk without a size")?;
        let size = std::str::from_utf8(&bytes[..line])?
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let size = usize::from_str_radix(size, 16).context("chunk size is not a number")?;
        if size == 0 {
            return Ok(out);
        }
        let end = (line + 2)
            .checked_add(size)
            .context("chunk size overflows")?;
        out.extend_from_slice(bytes.get(line + 2..end).context("chunk is cut off")?);
        bytes = bytes.get(end + 2..).context("chunk is cut off")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_every_framing() {
        let plain =
            parse(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nX-Y: z \r\n\r\nno!")
                .unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (503, "no"));
        assert_eq!(plain.headers[1], ("x-y".into(), "z".into()));
        let chunked =
            parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n").unwrap();
        assert_eq!(chunked.body, "abcd");
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\nrest").unwrap().body, "rest");
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_err());
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
    }
}
