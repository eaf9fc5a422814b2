//! Requests that are made again while a cluster is not itself yet.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout_at};

/// How long to wait before a request is made again; an API server that restarts needs seconds.
const PAUSE: Duration = Duration::from_millis(500);

/// Whether the same request may succeed a little later.
pub(crate) fn is_transient(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            let message = status.message.as_str();
            matches!(status.code, 429 | 502 | 503 | 504)
                // A webhook whose Pods do not answer yet, or any more.
                || (status.code == 500 && message.contains("webhook"))
                // etcd elects a leader, or is slow.
                || (status.code == 500 && message.contains("etcdserver"))
                // The namespace of the last run is on its way out.
                || (status.code == 403 && message.contains("being terminated"))
                // Two writers at once.
                || (status.code == 409 && status.reason == "Conflict")
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// Makes a request until it succeeds, fails for good, or the deadline is over. The last error is the result.
pub(crate) async fn retry<T, F: Future<Output = Result<T, kube::Error>>>(
    deadline: Instant,
    mut request: impl FnMut() -> F,
) -> Result<T, kube::Error> {
    loop {
        // A connection whose other end is gone never answers.
        let answer = match timeout_at(deadline, request()).await {
            Ok(answer) => answer,
            Err(_) => {
                return Err(kube::Error::Service(
                    "the API server does not answer".into(),
                ));
            }
        };
        match answer {
            Err(error) if is_transient(&error) && Instant::now() + PAUSE < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

/// The object, or nothing if there is none.
pub(crate) fn found<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}
