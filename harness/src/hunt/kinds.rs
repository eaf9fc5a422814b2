//! What histories are made of, by the names that coverage counts: transitions, frontends, policies, faults.

use crate::scenario::{
    Feature, Level,
    doc::{FrontendKind, Protocol},
};

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// All of them, in the order of the declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As coverage prints it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

named! {
    /// A change of the objects.
    Transition {
        /// A pod of the Service is created.
        PodStarts = "pod starts",
        /// A pod and its object go at once.
        PodStops = "pod stops",
        /// Ready=False.
        PodUnready = "pod unready",
        /// Ready=True.
        PodReady = "pod ready",
        /// A graceful termination begins.
        PodTerminates = "pod terminates",
        /// A pod begins or ceases to match the selector.
        PodRelabelled = "pod relabelled",
        /// A Service is created.
        ServiceCreated = "service created",
        /// A Service is deleted.
        ServiceDeleted = "service deleted",
        /// A Service is deleted and created again at once.
        ServiceRecreated = "service recreated",
        /// Another `spec.type`.
        TypeChanged = "type changed",
        /// A port more.
        PortAdded = "port added",
        /// A port less.
        PortRemoved = "port removed",
        /// A port with another number.
        PortRenumbered = "port renumbered",
        /// Two ports change their numbers with each other.
        PortsSwapped = "ports swapped",
        /// Another `targetPort`.
        TargetPortChanged = "target port changed",
        /// Another `nodePort`.
        NodePortChanged = "node port changed",
        /// The selector matches other pods.
        SelectorChanged = "selector changed",
        /// `internalTrafficPolicy` there and back.
        InternalPolicyToggled = "internal policy toggled",
        /// `externalTrafficPolicy` there and back.
        ExternalPolicyToggled = "external policy toggled",
        /// `sessionAffinity` on or off.
        AffinitySwitched = "affinity switched",
        /// Another `timeoutSeconds`.
        AffinityTimeout = "affinity timeout changed",
        /// Other `externalIPs`.
        ExternalIpsChanged = "externalIPs changed",
        /// Other addresses in the load balancer status.
        IngressChanged = "ingress changed",
        /// Other `loadBalancerSourceRanges`.
        SourceRangesChanged = "source ranges changed",
        /// The second family comes or goes.
        FamilyToggled = "second family toggled",
        /// The label of another proxy comes or goes.
        ProxyNameToggled = "proxy name toggled",
        /// `publishNotReadyAddresses` there and back.
        PublishNotReadyToggled = "publish not ready toggled",
        /// `trafficDistribution` there and back.
        DistributionChanged = "traffic distribution changed",
        /// Addresses and NodePorts go from one Service to another.
        AddressesMoved = "addresses moved",
        /// An endpoint more in a slice written by hand.
        EndpointListed = "endpoint listed",
        /// An endpoint less in a slice written by hand.
        EndpointUnlisted = "endpoint unlisted",
        /// Other conditions in a slice written by hand.
        ConditionsChanged = "conditions changed",
        /// An endpoint goes from one slice to another, or is in both.
        SliceRebalanced = "slices rebalanced",
        /// All slices written by hand are replaced under new names.
        SlicesReplaced = "slices replaced",
        /// A label or annotation without a meaning.
        Meaningless = "meaningless update",
    }
}

impl Transition {
    /// The lowest level whose rules say what happens after it.
    pub fn level(self) -> Level {
        match self {
            // A terminating endpoint is the only one now and then: EP-3 is extended.
            Self::PodTerminates
            | Self::AffinitySwitched
            | Self::AffinityTimeout
            | Self::SourceRangesChanged
            | Self::DistributionChanged => Level::Extended,
            _ => Level::Core,
        }
    }

    /// What a candidate must be able to do.
    pub fn feature(self) -> Option<Feature> {
        match self {
            Self::InternalPolicyToggled | Self::ExternalPolicyToggled => {
                Some(Feature::TrafficPolicy)
            }
            Self::AffinitySwitched | Self::AffinityTimeout => Some(Feature::SessionAffinity),
            Self::ExternalIpsChanged => Some(Feature::ExternalIps),
            Self::IngressChanged => Some(Feature::LoadBalancer),
            Self::SourceRangesChanged => Some(Feature::SourceRanges),
            Self::DistributionChanged => Some(Feature::TopologyHints),
            _ => None,
        }
    }
}

named! {
    /// What goes wrong around the transitions.
    Disturbance {
        /// Nothing.
        None = "none",
        /// SIGTERM and a new start, right after the transitions.
        Restart = "proxy restart",
        /// SIGKILL and a new start, right after the transitions.
        Kill = "proxy kill",
        /// The transitions happen while it does not run.
        Down = "proxy down",
        /// The transitions happen while it is stopped (SIGSTOP).
        Stopped = "proxy stopped",
        /// Every watch ends, before and after the transitions.
        DropWatches = "watches dropped",
        /// The transitions happen while the API refuses connections.
        Outage = "API outage",
        /// The transitions happen during an outage, and the history is compacted before it ends.
        OutageAndGone = "API outage and 410",
        /// The transitions happen while the API answers 500.
        Errors = "API errors",
        /// Events and answers are late.
        Delay = "API delay",
        /// 410 Gone.
        Compact = "410 gone",
        /// Lists in another order.
        ShuffledRelist = "shuffled relist",
        /// Updates that change nothing.
        NoopUpdates = "no-op updates",
        /// Every event comes twice.
        DuplicateEvents = "duplicate events",
        /// Watches stay open and silent until they are reset.
        HalfOpen = "half-open watches",
        /// Somebody flushes all rules.
        FlushRuleset = "ruleset flushed",
        /// Links and addresses come and go.
        LinkChurn = "link churn",
    }
}

impl Disturbance {
    /// The lowest level whose rules say that it must be survived.
    pub fn level(self) -> Level {
        match self {
            Self::HalfOpen | Self::FlushRuleset | Self::LinkChurn => Level::Strict,
            _ => Level::Core,
        }
    }

    /// What a candidate must be able to do.
    pub fn feature(self) -> Option<Feature> {
        match self {
            Self::FlushRuleset => Some(Feature::NetfilterRules),
            _ => None,
        }
    }

    /// New connections may be lost while it lasts, by the rules of a level (CP-2 is strict; nothing is said about flushed rules).
    pub fn may_lose_new_flows(self, level: Level) -> bool {
        match self {
            Self::Restart | Self::Kill | Self::Down => level < Level::Strict,
            Self::FlushRuleset | Self::LinkChurn => true,
            _ => false,
        }
    }

    /// The candidate ends and starts again.
    pub fn restarts(self) -> bool {
        matches!(self, Self::Restart | Self::Kill | Self::Down)
    }

    /// Established flows may be lost.
    pub fn may_break_flows(self) -> bool {
        self == Self::FlushRuleset
    }
}

named! {
    /// How a Service chooses endpoints, as far as it is not the default.
    Policy {
        /// Everything as by default.
        Cluster = "Cluster",
        /// `internalTrafficPolicy: Local`.
        InternalLocal = "internal Local",
        /// `externalTrafficPolicy: Local`.
        ExternalLocal = "external Local",
        /// Both.
        BothLocal = "both Local",
        /// `sessionAffinity: ClientIP`.
        Affinity = "affinity",
    }
}

impl Policy {
    /// The lowest level whose rules speak of it.
    pub fn level(self) -> Level {
        match self {
            Self::Affinity => Level::Extended,
            _ => Level::Core,
        }
    }

    /// What a candidate must be able to do.
    pub fn feature(self) -> Option<Feature> {
        match self {
            Self::Cluster => None,
            Self::Affinity => Some(Feature::SessionAffinity),
            _ => Some(Feature::TrafficPolicy),
        }
    }
}

/// A way into a Service, by protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// Kind.
    pub kind: FrontendKind,
    /// Protocol.
    pub protocol: Protocol,
}

impl Frontend {
    /// All that histories have.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            FrontendKind::ClusterIp,
            FrontendKind::NodePort,
            FrontendKind::ExternalIp,
            FrontendKind::LoadBalancer,
        ]
        .into_iter()
        .flat_map(|kind| [Protocol::Tcp, Protocol::Udp].map(|protocol| Self { kind, protocol }))
    }

    /// What a candidate must be able to do.
    pub fn feature(self) -> Option<Feature> {
        match self.kind {
            FrontendKind::ExternalIp => Some(Feature::ExternalIps),
            FrontendKind::LoadBalancer => Some(Feature::LoadBalancer),
            _ => None,
        }
    }

    /// As coverage prints it.
    pub fn as_str(self) -> &'static str {
        match (self.kind, self.protocol) {
            (FrontendKind::ClusterIp, Protocol::Udp) => "clusterIP UDP",
            (FrontendKind::ClusterIp, _) => "clusterIP TCP",
            (FrontendKind::NodePort, Protocol::Udp) => "nodePort UDP",
            (FrontendKind::NodePort, _) => "nodePort TCP",
            (FrontendKind::ExternalIp, Protocol::Udp) => "externalIP UDP",
            (FrontendKind::ExternalIp, _) => "externalIP TCP",
            (FrontendKind::LoadBalancer, Protocol::Udp) => "loadBalancer UDP",
            (FrontendKind::LoadBalancer, _) => "loadBalancer TCP",
        }
    }
}
