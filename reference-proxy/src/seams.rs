//! Where the parts of the proxy meet.
//!
//! ```text
//!   watches ──[events]──> state ──[desired state]──> elements ──[transaction]──> kernel ──[conntrack]──> stale entries
//!                           │          rules ──────────[ruleset]─────┘
//!                           └──[health]──> answers
//! ```
//!
//! Each seam is a few methods of [`Seams`] whose defaults are what the proxy does. [`Plain`] overrides none of them, and the compiler resolves
//! its calls to nothing, so the shipped program neither pays for seams nor contains anything but defaults. With the cargo feature `mutants`,
//! small decorators override one or two methods each, to be a proxy with a known fault.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::{IpAddr, SocketAddr},
};

use hyper::Response;

use crate::{
    backend::Backend,
    compile::{Compiled, FrontendKind, Surroundings},
    conntrack::{Conntrack, Removed, UdpFrontend},
    endpoints::EndpointSets,
    engine::{Event, Feed},
    health::{ServiceHealth, ServiceKey as HealthKey},
    model::{Service, ServiceKey, ServicePort, Slice, SliceKey},
    nft::{Difference, Layout},
    objects::{EndpointSliceObject, NodeObject, ServiceObject},
    ruleset::{Changes, Element, Family, Frontend},
    watch,
};

/// What the endpoints of one Service port were chosen from.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The Service.
    pub service: &'a Service,
    /// The port.
    pub port: &'a ServicePort,
    /// The family of the endpoints.
    pub family: Family,
    /// All slices of the Service.
    pub slices: &'a [(SliceKey, Slice)],
    /// What is known about the node.
    pub around: &'a Surroundings,
}

/// What a transaction is made through.
pub trait Kernel {
    /// See [`Backend::apply`].
    ///
    /// # Errors
    ///
    /// The kernel refused.
    fn apply(&mut self, changes: &mut Changes) -> io::Result<()>;

    /// See [`Backend::adopt`].
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused the change.
    fn adopt(&mut self, elements: &dyn Fn() -> Vec<Element>) -> io::Result<Option<Difference>>;

    /// See [`Backend::forget_affinities`].
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused.
    fn forget_affinities(&mut self, wrong: &mut WrongAffinity<'_>) -> io::Result<usize>;

    /// See [`Backend::delete`].
    ///
    /// # Errors
    ///
    /// The kernel refused.
    fn delete(&mut self) -> io::Result<()>;
}

/// Says of a client, the frontend it used and the endpoint it would return to whether that affinity is to be forgotten.
pub type WrongAffinity<'a> = dyn FnMut(IpAddr, &Frontend, (IpAddr, u16)) -> bool + 'a;

impl Kernel for Backend {
    fn apply(&mut self, changes: &mut Changes) -> io::Result<()> {
        Self::apply(self, changes)
    }

    fn adopt(&mut self, elements: &dyn Fn() -> Vec<Element>) -> io::Result<Option<Difference>> {
        Self::adopt(self, elements)
    }

    fn forget_affinities(&mut self, wrong: &mut WrongAffinity<'_>) -> io::Result<usize> {
        Self::forget_affinities(self, wrong)
    }

    fn delete(&mut self) -> io::Result<()> {
        Self::delete(self)
    }
}

/// A part of the health server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `/healthz`, `/livez` or another path of the node's server.
    Node,
    /// A Service's healthCheckNodePort.
    Service,
}

/// The seams. The default of each method is what the proxy does.
pub trait Seams: fmt::Debug + Send + Sync + 'static {
    // ---- events: from the watches to the state

    /// The label selector of a watch.
    fn selector(&self, feed: Feed) -> &'static str {
        watch::selector(feed)
    }

    /// Seconds after which a quiet watch is renewed.
    fn watch_timeout(&self, seconds: u32) -> u32 {
        seconds
    }

    /// A Service as it arrived, before it is read.
    fn service_object(&self, _object: &mut ServiceObject) {}

    /// An EndpointSlice as it arrived, before it is read as seen from the node.
    fn slice_object(&self, _object: &mut EndpointSliceObject, _node: &str) {}

    /// The Node as it arrived, before it is read.
    fn node_object(&self, _object: &mut NodeObject) {}

    /// What the engine gets to know, `None` for nothing.
    fn event(&self, event: Event) -> Option<Event> {
        Some(event)
    }

    /// Whether a watch goes on after an error.
    fn goes_on(&self, _feed: Feed) -> bool {
        true
    }

    // ---- desired state: from the objects to elements

    /// What is known about the node.
    fn surroundings(&self, _around: &mut Surroundings) {}

    /// The frontends of a Service; they stay sorted.
    fn frontends(
        &self,
        _key: &ServiceKey,
        _service: &Service,
        _frontends: &mut Vec<(Frontend, FrontendKind, usize)>,
    ) {
    }

    /// The endpoints of a Service port.
    fn endpoints(&self, _choice: Choice<'_>, _sets: &mut EndpointSets) {}

    /// What a Service contributes; it is sorted afterwards.
    fn compiled(
        &self,
        _service: &Service,
        _frontends: &[(Frontend, FrontendKind, usize)],
        _compiled: &mut Compiled,
    ) {
    }

    /// What the node contributes; it is sorted afterwards.
    fn node_elements(&self, _around: &Surroundings, _elements: &mut Vec<Element>) {}

    // ---- ruleset: the rules around the elements

    /// The rules.
    fn layout(&self) -> Layout {
        Layout::default()
    }

    // ---- transaction: from the ruleset to the kernel

    /// Called once, before anything was listed.
    ///
    /// # Errors
    ///
    /// It could not be done; that is logged.
    fn start(&self, _kernel: &mut dyn Kernel) -> io::Result<()> {
        Ok(())
    }

    /// Brings changes into force. `elements` are all that the kernel should have afterwards.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    fn apply(
        &self,
        kernel: &mut dyn Kernel,
        changes: &mut Changes,
        _elements: &dyn Fn() -> Vec<Element>,
    ) -> io::Result<()> {
        kernel.apply(changes)
    }

    /// Makes the kernel's table have these elements, whatever is there.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused the change.
    fn adopt(
        &self,
        kernel: &mut dyn Kernel,
        elements: &dyn Fn() -> Vec<Element>,
    ) -> io::Result<Option<Difference>> {
        kernel.adopt(elements)
    }

    /// Forgets affinities that lead nowhere.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused.
    fn forget_affinities(
        &self,
        kernel: &mut dyn Kernel,
        wrong: &mut WrongAffinity<'_>,
    ) -> io::Result<usize> {
        kernel.forget_affinities(wrong)
    }

    /// Removes the table, for whoever takes the proxy's place.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    fn clean_up(&self, kernel: &mut dyn Kernel) -> io::Result<()> {
        kernel.delete()
    }

    /// Whether the table is compared with what it should be after every change, as debug builds do.
    fn reads_back(&self) -> bool {
        cfg!(debug_assertions)
    }

    // ---- conntrack: from the transaction to stale entries

    /// Removes stale UDP entries.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused.
    fn remove_stale(
        &self,
        table: &mut Conntrack,
        stale: &HashMap<UdpFrontend, HashSet<SocketAddr>>,
    ) -> io::Result<Removed> {
        table.remove_stale(stale)
    }

    // ---- health: from the state to answers

    /// The Services that have a healthCheckNodePort.
    fn health(&self, _services: &mut Vec<(HealthKey, ServiceHealth)>) {}

    /// An answer of the health server.
    fn answer(&self, _asked: Asked, _response: &mut Response<String>) {}
}

/// The proxy as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plain;

impl Seams for Plain {}
