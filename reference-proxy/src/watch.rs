//! The API side: three watches, whose objects become events for the engine.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    pin::pin,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt as _, utils::Backoff, watcher},
};
use serde::de::DeserializeOwned;

use crate::{
    engine::{Event, Feed},
    model::{Node, Service, Slice},
    objects::{EndpointSliceObject, NodeObject, ServiceObject},
    seams::Seams,
};

/// Services that another proxy serves, and headless ones, carry one of these labels.
const SERVICE_LABELS: &str =
    "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";

/// The label of another proxy counts on Services only (kubernetes/kubernetes#98577 is about the one below).
const SLICE_LABELS: &str = "!service.kubernetes.io/headless";

/// The label selector of a watch.
pub fn selector(feed: Feed) -> &'static str {
    match feed {
        Feed::Services => SERVICE_LABELS,
        Feed::Slices => SLICE_LABELS,
        Feed::Node => "",
    }
}

/// How many objects a page of a list has, as in client-go.
const PAGE: u32 = 500;

/// How to watch.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// The name of this node.
    pub node: String,
    /// Seconds after which the server ends a quiet watch. A connection that is half open is noticed a few seconds later.
    pub timeout: u32,
}

/// Delays between attempts: from a tenth of a second to three seconds, with jitter. An API server that comes back must not wait half a
/// minute for a proxy, which is where the usual backoff ends.
#[derive(Debug)]
struct Patience {
    next: Duration,
    random: RandomState,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(100);
    const LAST: Duration = Duration::from_secs(3);

    fn new() -> Self {
        Self {
            next: Self::FIRST,
            random: RandomState::new(),
        }
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.next;
        self.next = (now * 2).min(Self::LAST);
        let jitter = self.random.hash_one(Instant::now()) % 1000;
        Some(now.mul_f64(0.75 + jitter as f64 / 2000.0))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

/// Watches Services until the engine is gone.
pub async fn services<S: Seams + ?Sized>(
    client: Client,
    options: WatchOptions,
    events: Sender<Event>,
    seams: &'static S,
) {
    let config = config(&options).labels(seams.selector(Feed::Services));
    follow::<ServiceObject, S>(
        Api::all(client),
        config,
        Feed::Services,
        &events,
        seams,
        |object, gone| {
            seams.service_object(object);
            let key = key(object)?;
            let service = if gone { None } else { Service::parse(object) };
            Some(Event::Service(key, service))
        },
    )
    .await;
}

/// Watches EndpointSlices until the engine is gone.
pub async fn slices<S: Seams + ?Sized>(
    client: Client,
    options: WatchOptions,
    events: Sender<Event>,
    seams: &'static S,
) {
    let config = config(&options).labels(seams.selector(Feed::Slices));
    let node = options.node.clone();
    follow::<EndpointSliceObject, S>(
        Api::all(client),
        config,
        Feed::Slices,
        &events,
        seams,
        |object, gone| {
            seams.slice_object(object, &node);
            let key = key(object)?;
            let slice = if gone {
                None
            } else {
                Slice::parse(object, &node)
            };
            let triggered = object
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get("endpoints.kubernetes.io/last-change-trigger-time"))
                .and_then(|text| text.parse().ok());
            Some(Event::Slice(key, slice, triggered))
        },
    )
    .await;
}

/// Watches the Node of this node until the engine is gone.
pub async fn node<S: Seams + ?Sized>(
    client: Client,
    options: WatchOptions,
    events: Sender<Event>,
    seams: &'static S,
) {
    let config = config(&options).fields(&format!("metadata.name={}", options.node));
    let name = options.node.clone();
    follow::<NodeObject, S>(
        Api::all(client),
        config,
        Feed::Node,
        &events,
        seams,
        |object, gone| {
            seams.node_object(object);
            // A server that does not know the field selector sends every Node.
            let ours = object.metadata.name.as_deref() == Some(&name);
            ours.then(|| Event::Node((!gone).then(|| Node::parse(object))))
        },
    )
    .await;
}

fn config(options: &WatchOptions) -> watcher::Config {
    watcher::Config::default()
        .timeout(options.timeout)
        .page_size(PAGE)
}

fn key(object: &impl Resource) -> Option<std::sync::Arc<str>> {
    let meta = object.meta();
    Some(format!("{}/{}", meta.namespace.as_deref()?, meta.name.as_deref()?).into())
}

/// Turns a watch into events. After a list, [`Event::Listed`] says which objects exist, so that those deleted while nobody watched go.
async fn follow<K, S: Seams + ?Sized>(
    api: Api<K>,
    config: watcher::Config,
    feed: Feed,
    events: &Sender<Event>,
    seams: &'static S,
    convert: impl Fn(&mut K, bool) -> Option<Event>,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut stream = pin!(watcher(api, config).backoff(Patience::new()));
    let mut listed = HashSet::new();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(mut object)) => {
                let event = convert(&mut object, false);
                match &event {
                    Some(Event::Service(key, _) | Event::Slice(key, _, _)) => {
                        listed.insert(key.clone());
                    }
                    Some(Event::Node(_)) => {
                        listed.insert("/".into());
                    }
                    _ => {}
                }
                event
            }
            Ok(watcher::Event::InitDone) => Some(Event::Listed(feed, std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(mut object)) => convert(&mut object, false),
            Ok(watcher::Event::Delete(mut object)) => convert(&mut object, true),
            Err(error) => {
                tracing::warn!(?feed, "failed to watch: {error}");
                if !seams.goes_on(feed) {
                    return;
                }
                continue;
            }
        };
        if let Some(event) = event.and_then(|event| seams.event(event))
            && events.send(event).is_err()
        {
            return;
        }
    }
}
