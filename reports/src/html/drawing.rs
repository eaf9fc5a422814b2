//! The world of a failure as a picture: nodes with their pods, and the way of the packets of the failing cell.
//!
//! ```text
//!            outside
//!      ┌── node1 ──┐   ┌── node2 ──┐
//!      │ [ proxy ] │   │           │      source -> proxy of the node that handles it -> expected endpoints
//!      │   web     │   │  client   │      a cross where the way ends
//!      └───────────┘   └───────────┘
//! ```

use std::collections::BTreeMap;

use super::text::Text;
use crate::evidence::{Cell, Source, World};
use crate::text::shortened;

const NODE_WIDTH: usize = 250;
const GAP: usize = 34;
const POD_HEIGHT: usize = 34;
const POD_GAP: usize = 10;
/// Room beside the pods, in which arrows run.
const LANE: usize = 30;
const BAR_HEIGHT: usize = 36;

/// Pods of one node that are drawn, besides those that the failure is about.
const MAX_PODS: usize = 8;

/// The picture.
pub(super) struct Drawing {
    pub width: usize,
    pub height: usize,
    pub nodes: Vec<Node>,
    pub pods: Vec<Box>,
    pub ways: Vec<Way>,
    /// Where the way ends.
    pub cross: Option<(usize, usize)>,
    /// What a screen reader says, and the caption.
    pub words: Text,
}

/// A node, as large as its pods need.
pub(super) struct Node {
    pub x: usize,
    pub y: usize,
    pub height: usize,
    pub name: Text,
    pub addresses: Text,
    /// The proxy on it, with what it was asked for.
    pub bar: Bar,
}

/// A proxy.
pub(super) struct Bar {
    pub y: usize,
    /// Whether it handles the failing cell.
    pub asked: bool,
    pub first: Text,
    pub second: Text,
}

/// A pod, a process of a node, or a client outside.
pub(super) struct Box {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub name: Text,
    pub address: Text,
    /// `source`, `wanted`, `wrong` or nothing.
    pub role: &'static str,
}

/// An arrow.
pub(super) struct Way {
    pub path: String,
    /// `asks`, `wanted` or `wrong`.
    pub role: &'static str,
}

/// Who takes part.
struct Cast<'a> {
    expected: Vec<&'a str>,
    answered: Vec<&'a str>,
}

impl<'a> Cast<'a> {
    fn of(world: &'a World, expected: &str, actual: &str) -> Self {
        let mentions = |text: &str, address: &String| {
            text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '|'))
                .filter_map(|word| word.parse::<std::net::SocketAddr>().ok())
                .any(|socket| socket.ip().to_string() == *address)
        };
        let by_address = |text: &str| {
            let pods = world.pods.iter();
            let pods = pods.filter(|(_, pod)| pod.addresses.iter().any(|a| mentions(text, a)));
            pods.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
        };
        // What was seen names pods and not addresses.
        let named = actual
            .match_indices("answered by ")
            .filter_map(|(at, found)| {
                let rest = &actual[at + found.len()..];
                let name = rest.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '|'));
                let (name, _) = world.pods.get_key_value(name.into_iter().next()?)?;
                Some(name.as_str())
            });
        Self {
            expected: by_address(expected),
            answered: named.collect(),
        }
    }
}

impl Drawing {
    /// The picture of a cell; `None` where it is not known who talks to whom.
    pub fn of(world: &World, cell: &Cell, expected: &str, actual: &str) -> Option<Self> {
        let from = world.node_of(&cell.from)?;
        let handling = world.handling_node(cell)?;
        let cast = Cast::of(world, expected, actual);
        let outside = matches!(cell.from, Source::Outside(_));
        let top = if outside { 66 } else { 8 };
        let mut drawing = Self {
            width: world.nodes.len() * (NODE_WIDTH + GAP) + 8 - GAP + 8,
            height: 0,
            nodes: Vec::new(),
            pods: Vec::new(),
            ways: Vec::new(),
            cross: None,
            words: Text::short(
                &format!("{}: expected {expected}; seen: {actual}", cell.label),
                600,
            ),
        };
        let mut places: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut bars: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let source = match &cell.from {
            Source::Pod(pod) => pod.clone(),
            // No pod has a name with a slash.
            Source::Host(node) => format!("host/{node}"),
            Source::Outside(node) => format!("outside/{node}"),
        };
        let (mut x, mut tallest) = (8, 0);
        for (name, node) in &world.nodes {
            let bar_y = top + 34;
            let mut y = bar_y + BAR_HEIGHT + 22;
            let mut put = |drawing: &mut Self, key: String, label: &str, address: &str, role| {
                drawing.pods.push(Box {
                    x: x + LANE,
                    y,
                    width: NODE_WIDTH - 2 * LANE,
                    name: Text::short(label, 26),
                    address: Text::short(address, 30),
                    role,
                });
                places.insert(key, (x + LANE, y + POD_HEIGHT / 2));
                y += POD_HEIGHT + POD_GAP;
            };
            if matches!(&cell.from, Source::Host(host) if host == name) {
                put(
                    &mut drawing,
                    source.clone(),
                    "a process of the node",
                    "",
                    "source",
                );
            }
            let mut extras = 0;
            for (pod, place) in world.pods.iter().filter(|(_, pod)| pod.node == *name) {
                let role = cast.role(pod, &source);
                extras += usize::from(role.is_empty());
                if role.is_empty() && extras > MAX_PODS {
                    continue;
                }
                let address = same_family(&place.addresses, cell);
                put(&mut drawing, pod.clone(), pod, address, role);
            }
            if extras > MAX_PODS {
                let more = format!("and {} more pods", extras - MAX_PODS);
                put(&mut drawing, format!("more/{name}"), &more, "", "");
            }
            let asked = name == handling;
            // What is asked for, in two lines: the kind of frontend, and its address.
            let (first, second) = match cell.to.rsplit_once(' ') {
                Some((first, second)) if asked => (first, second),
                _ if asked => (cell.to.as_str(), ""),
                _ => ("candidate", ""),
            };
            bars.insert(name, (x + LANE, bar_y));
            drawing.nodes.push(Node {
                x,
                y: top,
                height: y - top,
                name: Text::short(name, 24),
                addresses: Text::short(same_family(&node.addresses, cell), 26),
                bar: Bar {
                    y: bar_y,
                    asked,
                    first: Text::short(first, 32),
                    second: Text::new(&shortened(second, 34)),
                },
            });
            if outside && name == from {
                let text = format!("outside, by {name}");
                drawing.pods.push(Box {
                    x: x + LANE,
                    y: 6,
                    width: NODE_WIDTH - 2 * LANE,
                    name: Text::short(&text, 26),
                    address: Text::new(""),
                    role: "source",
                });
                places.insert(source.clone(), (x + LANE, 6 + POD_HEIGHT / 2));
            }
            tallest = tallest.max(y);
            x += NODE_WIDTH + GAP;
        }
        drawing.height = tallest + 8;
        let bar = *bars.get(handling)?;
        let source = *places.get(&source)?;
        drawing.ways.push(Way {
            path: if outside {
                down(source, bar)
            } else {
                ask(source, bar)
            },
            role: "asks",
        });
        let place = |pod: &&str| places.get(*pod).copied();
        let wrong = cast
            .answered
            .iter()
            .filter(|pod| !cast.expected.contains(pod));
        let wrong: Vec<_> = wrong.filter_map(place).collect();
        for to in &wrong {
            drawing.ways.push(Way {
                path: deliver(bar, *to),
                role: "wrong",
            });
        }
        let right: Vec<_> = cast.expected.iter().filter_map(place).collect();
        for to in &right {
            drawing.ways.push(Way {
                path: deliver(bar, *to),
                role: "wanted",
            });
        }
        // Nobody can see from outside on which hop a packet was lost: the cross stands behind the proxy.
        drawing.cross = wrong
            .is_empty()
            .then_some((bar.0 + NODE_WIDTH - 2 * LANE, bar.1 + BAR_HEIGHT / 2));
        Some(drawing)
    }
}

impl Cast<'_> {
    fn role(&self, pod: &str, source: &str) -> &'static str {
        match pod {
            _ if pod == source => "source",
            _ if self.expected.contains(&pod) => "wanted",
            _ if self.answered.contains(&pod) => "wrong",
            _ => "",
        }
    }
}

/// The address of the family that is dialled.
fn same_family<'a>(addresses: &'a [String], cell: &Cell) -> &'a str {
    let v6 = cell.address.is_some_and(|address| address.is_ipv6());
    let fits = addresses.iter().find(|address| address.contains(':') == v6);
    fits.or(addresses.first()).map_or("", String::as_str)
}

/// From above into a proxy.
fn down(from: (usize, usize), bar: (usize, usize)) -> String {
    let middle = NODE_WIDTH / 2 - LANE;
    let (x, y) = (from.0 + middle, from.1 + POD_HEIGHT / 2);
    let (to_x, to_y) = (bar.0 + middle, bar.1);
    let half = (y + to_y) / 2;
    format!("M{x} {y}C{x} {half} {to_x} {half} {to_x} {to_y}")
}

/// From a pod to a proxy: through the lane on the left if it is the same node's.
fn ask(from: (usize, usize), bar: (usize, usize)) -> String {
    let right = NODE_WIDTH - 2 * LANE;
    let to_y = bar.1 + BAR_HEIGHT / 2;
    let (x, y) = from;
    match x.cmp(&bar.0) {
        std::cmp::Ordering::Equal => {
            let lane = x - LANE + 6;
            format!("M{x} {y}C{lane} {y} {lane} {to_y} {} {to_y}", bar.0)
        }
        std::cmp::Ordering::Less => {
            let x = x + right;
            let half = (x + bar.0) / 2;
            format!("M{x} {y}C{half} {y} {half} {to_y} {} {to_y}", bar.0)
        }
        std::cmp::Ordering::Greater => {
            let to_x = bar.0 + right;
            let half = (x + to_x) / 2;
            format!("M{x} {y}C{half} {y} {half} {to_y} {to_x} {to_y}")
        }
    }
}

/// From a proxy to a pod: through the lane on the right if it is on the same node.
fn deliver(bar: (usize, usize), to: (usize, usize)) -> String {
    let right = NODE_WIDTH - 2 * LANE;
    let y = bar.1 + BAR_HEIGHT / 2;
    let (to_x, to_y) = to;
    match to_x.cmp(&bar.0) {
        std::cmp::Ordering::Equal => {
            let x = bar.0 + right;
            let lane = x + LANE - 6;
            format!("M{x} {y}C{lane} {y} {lane} {to_y} {x} {to_y}")
        }
        std::cmp::Ordering::Greater => {
            let x = bar.0 + right;
            let half = (x + to_x) / 2;
            format!("M{x} {y}C{half} {y} {half} {to_y} {to_x} {to_y}")
        }
        std::cmp::Ordering::Less => {
            let (x, to_x) = (bar.0, to_x + right);
            let half = (x + to_x) / 2;
            format!("M{x} {y}C{half} {y} {half} {to_y} {to_x} {to_y}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Pod, WorldNode};

    fn world() -> World {
        let node = |address: &str| WorldNode {
            addresses: vec![address.into()],
        };
        let pod = |node: &str, address: &str| Pod {
            node: node.into(),
            addresses: vec![address.into(), "fd00::1".into()],
        };
        World {
            nodes: [("node1", "10.89.0.11"), ("node2", "10.89.0.12")]
                .map(|(name, address)| (name.to_owned(), node(address)))
                .into(),
            pods: [
                ("web-1", "node1", "10.1.0.1"),
                ("web-2", "node2", "10.2.0.1"),
                ("client", "node2", "10.2.0.2"),
            ]
            .map(|(name, on, address)| (name.to_owned(), pod(on, address)))
            .into(),
            ..World::default()
        }
    }

    fn drawing(cell: &str, expected: &str, actual: &str) -> Option<Drawing> {
        Drawing::of(&world(), &Cell::parse(cell).unwrap(), expected, actual)
    }

    fn roles(drawing: &Drawing) -> Vec<&str> {
        drawing.ways.iter().map(|way| way.role).collect()
    }

    #[test]
    fn who_takes_part_is_seen() {
        let seen = drawing(
            "pod client -> web ClusterIP 10.96.0.1:80/TCP",
            "answered by web-1 10.1.0.1:8080",
            "1 of 4 attempts answered by web-2",
        )
        .unwrap();
        assert_eq!(roles(&seen), ["asks", "wrong", "wanted"]);
        assert_eq!(seen.cross, None);
        let asked: Vec<bool> = seen.nodes.iter().map(|node| node.bar.asked).collect();
        assert_eq!(asked, [false, true]);
        let role = |name: &str| {
            seen.pods
                .iter()
                .find(|pod| pod.name.to_string() == name)
                .unwrap()
                .role
        };
        assert_eq!(
            (role("client"), role("web-1"), role("web-2")),
            ("source", "wanted", "wrong")
        );
    }

    #[test]
    fn a_node_port_is_handled_by_its_node() {
        let seen = drawing(
            "outside/node2 -> web NodePort 10.89.0.11:30000/TCP",
            "answered by web-1 10.1.0.1:8080",
            "4 of 4 attempts timed out",
        )
        .unwrap();
        assert!(seen.nodes[0].bar.asked);
        assert_eq!(roles(&seen), ["asks", "wanted"]);
        assert!(seen.cross.is_some());
    }

    #[test]
    fn strangers_are_not_drawn() {
        assert!(
            drawing(
                "pod ghost -> web ClusterIP 10.96.0.1:80/TCP",
                "refused",
                "timed out"
            )
            .is_none()
        );
        let cell = "node1 -> web ClusterIP 10.96.0.1:80/TCP";
        let seen = drawing(cell, "refused", "timed out").unwrap();
        assert_eq!(roles(&seen), ["asks"]);
    }
}
