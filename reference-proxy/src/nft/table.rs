//! The table in the kernel: making it, changing it, comparing it.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, io,
    net::IpAddr,
};

use netlink_packet_core::Parseable as _;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetMessage,
    TableAttribute, TableMessage,
};

use super::{
    message,
    socket::{Batch, NftSocket},
    wire::{self, WireData, WireKey},
};
use crate::ruleset::{
    CHAINS, Chain, Changes, Data, Element, Family, Frontend, Rule, SetId, SetKind, TABLE,
    affinity_rules, rules, sets,
};

/// A netlink attribute's length has 16 bits, so a message holds this many elements at most.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Where the rules of the table come from.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The rules of a chain.
    pub rules: fn(Chain) -> Vec<Rule>,
    /// The rules that record affinities with a timeout.
    pub affinity_rules: fn(Family, u32) -> Vec<Rule>,
}

impl Default for Layout {
    /// The rules of `ruleset/layout.rs`.
    fn default() -> Self {
        Self {
            rules,
            affinity_rules,
        }
    }
}

/// The table, programmed over netlink.
#[derive(Debug)]
pub struct NetlinkTable {
    socket: NftSocket,
    layout: Layout,
    /// Chains made on demand that exist.
    chains: BTreeSet<Chain>,
    /// Affinity sets made on demand that exist.
    sticky: BTreeSet<SetId>,
    /// How many transactions were needed so far.
    transactions: u64,
}

/// Where the kernel's table differs from what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// There is no such table, or it has another layout, or chains, rules or sets are missing.
    Layout(String),
    /// Only elements differ: so many are missing, strange, or have other data.
    Elements {
        /// Elements that should be there.
        missing: usize,
        /// Elements that should not be there.
        strange: usize,
        /// Elements that lead elsewhere than they should.
        changed: usize,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(what) => f.write_str(what),
            Self::Elements {
                missing,
                strange,
                changed,
            } => write!(
                f,
                "{missing} elements missing, {strange} strange, {changed} changed"
            ),
        }
    }
}

/// Elements in the kernel, as it has them.
type Listed = HashMap<WireKey, WireData>;

/// Removes, adds or replaces on the level of the kernel's elements, for repairs.
#[derive(Default)]
struct Repair {
    remove: Vec<(SetId, WireKey)>,
    add: Vec<Element>,
    difference: (usize, usize, usize),
}

impl NetlinkTable {
    /// Opens a socket in the network namespace of the calling thread. Nothing is changed yet.
    ///
    /// # Errors
    ///
    /// The socket could not be made.
    pub fn open() -> io::Result<Self> {
        Self::with_layout(Layout::default())
    }

    /// The same, with other rules.
    ///
    /// # Errors
    ///
    /// The socket could not be made.
    pub fn with_layout(layout: Layout) -> io::Result<Self> {
        Ok(Self {
            socket: NftSocket::open()?,
            layout,
            chains: BTreeSet::new(),
            sticky: BTreeSet::new(),
            transactions: 0,
        })
    }

    /// The address by which notifications name this table's own changes.
    ///
    /// # Errors
    ///
    /// The socket's address could not be read.
    pub fn port(&self) -> io::Result<u32> {
        self.socket.port()
    }

    /// Makes transactions no larger than `bytes`, which is rarely of use outside tests: the socket's own limit holds anyway.
    pub fn limit_transactions(&mut self, bytes: usize) {
        self.socket.limit(bytes);
    }

    /// How many transactions were sent so far.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Deletes the table, if there is one.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub fn delete(&mut self) -> io::Result<()> {
        let mut batch = Batch::default();
        batch.push(message::any_table());
        batch.push(message::delete_table());
        self.chains.clear();
        self.sticky.clear();
        self.commit(&batch)
    }

    /// Makes the table anew with these elements, whatever was there before; in one transaction when it fits.
    ///
    /// # Errors
    ///
    /// The kernel refused. The table is as it was then, unless several transactions were needed.
    pub fn replace(&mut self, elements: Vec<Element>) -> io::Result<()> {
        self.chains.clear();
        self.sticky.clear();
        let mut fixed = Batch::default();
        fixed.push(message::any_table());
        fixed.push(message::delete_table());
        fixed.push(message::new_table());
        for set in sets() {
            let id = fixed.next_id();
            fixed.push(message::new_set(set, id));
        }
        for chain in CHAINS {
            fixed.push(message::new_chain(chain));
        }
        for chain in CHAINS {
            for rule in (self.layout.rules)(chain) {
                fixed.push(message::new_rule(chain, &rule));
            }
        }
        self.send(fixed, &mut Changes::all(elements))
    }

    /// Changes elements, and makes the chains and sets that they need; in one transaction when it fits, else in an order in which no
    /// intermediate state is wrong.
    ///
    /// # Errors
    ///
    /// The kernel refused. Nothing was changed then, unless several transactions were needed.
    pub fn apply(&mut self, changes: &mut Changes) -> io::Result<()> {
        // In a transaction of their own: a packet that entered the rules before a commit and looks up a verdict after it has yet the old
        // generation's rules of the chain it is sent to, and a chain of the same transaction has none in it.
        let mut first = Packer {
            table: self,
            batch: Batch::default(),
        };
        let (chains, sticky) = (changes.chains(), changes.sticky());
        first.push_on_demand(&chains, &sticky)?;
        first.flush()?;
        self.chains.extend(chains);
        self.sticky.extend(sticky);
        self.send(Batch::default(), changes)
    }

    fn send(&mut self, start: Batch, changes: &mut Changes) -> io::Result<()> {
        changes.sort();
        let mut packer = Packer {
            table: self,
            batch: start,
        };
        let chains = changes.chains();
        let sticky = changes.sticky();
        packer.push_on_demand(&chains, &sticky)?;
        for run in changes.add.chunk_by(|a, b| a.set == b.set) {
            let set = run[0].set;
            if set.kind.has_ranges() {
                let mut atom = Batch::default();
                for group in groups(removals_of(&changes.remove, set), |e| e.set) {
                    atom.extend(&encode_removals(group));
                }
                for group in groups(run, |e| e.set) {
                    atom.extend(&encode_adds(group));
                }
                packer.push(&atom)?;
                continue;
            }
            for group in groups(run, |e| e.set) {
                packer.push(&encode_adds(group))?;
            }
        }
        for group in groups(&changes.replace, |(e, _)| e.set) {
            packer.push(&encode_replacements(group))?;
        }
        for group in groups(&changes.remove, |e| e.set) {
            let set = group[0].set;
            let done = set.kind.has_ranges() && changes.add.iter().any(|e| e.set == set);
            if !done {
                packer.push(&encode_removals(group))?;
            }
        }
        packer.flush()?;
        self.chains.extend(chains);
        self.sticky.extend(sticky);
        Ok(())
    }

    fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        self.transactions += 1;
        self.socket.commit(batch)
    }

    /// Takes over a table that another process of this layout left, or makes a new one, so that it has exactly these elements. Affinities
    /// survive where the layout is the same. Returns what had to be changed, `None` if nothing.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused the change.
    pub fn adopt(&mut self, elements: impl Fn() -> Vec<Element>) -> io::Result<Option<Difference>> {
        match self.layout_difference()? {
            Some(what) => {
                self.replace(elements())?;
                Ok(Some(Difference::Layout(what)))
            }
            None => {
                let repair = self.compare(&elements())?;
                let (missing, strange, changed) = repair.difference;
                if missing + strange + changed == 0 {
                    return Ok(None);
                }
                self.repair(repair)?;
                Ok(Some(Difference::Elements {
                    missing,
                    strange,
                    changed,
                }))
            }
        }
    }

    /// Compares the kernel's table with these elements and changes nothing.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed.
    pub fn difference(&mut self, elements: &[Element]) -> io::Result<Option<Difference>> {
        if let Some(what) = self.layout_difference()? {
            return Ok(Some(Difference::Layout(what)));
        }
        let (missing, strange, changed) = self.compare(elements)?.difference;
        Ok(
            (missing + strange + changed > 0).then_some(Difference::Elements {
                missing,
                strange,
                changed,
            }),
        )
    }

    /// Why the chains, rules and sets are not those of this layout, `None` if they are. Learns what exists on demand.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed.
    pub fn layout_difference(&mut self) -> io::Result<Option<String>> {
        let comments: Vec<Vec<u8>> = self.socket.dump(
            &message::wrap(
                NfTablesMessage::GetTable(TableMessage {
                    attributes: Vec::new(),
                }),
                0,
            ),
            |out: &mut Vec<Vec<u8>>, payload| {
                let Ok(table) = TableMessage::parse(payload) else {
                    return;
                };
                if table
                    .attributes
                    .contains(&TableAttribute::Name(TABLE.into()))
                {
                    let comment = table.attributes.into_iter().find_map(|a| match a {
                        TableAttribute::UserData(bytes) => Some(bytes),
                        _ => None,
                    });
                    out.push(comment.unwrap_or_default());
                }
            },
        )?;
        match comments.first() {
            None => return Ok(Some("there is no table".into())),
            Some(found) if *found != message::table_comment() => {
                return Ok(Some("the table has another layout".into()));
            }
            Some(_) => {}
        }
        let found_sets = self.list_sets()?;
        let found_chains = self.list_chains()?;
        let mut sticky = BTreeSet::new();
        for name in &found_sets {
            match SetId::parse(name) {
                Some(set) if matches!(set.kind, SetKind::Sticky(_)) => {
                    sticky.insert(set);
                }
                Some(_) => {}
                None => return Ok(Some(format!("there is a strange set {name}"))),
            }
        }
        for set in sets() {
            if !found_sets.contains(&set.to_string()) {
                return Ok(Some(format!("set {set} is missing")));
            }
        }
        let mut chains = BTreeSet::new();
        let mut expected: HashMap<String, usize> = HashMap::new();
        for name in found_chains {
            let Some(chain) = Chain::parse(&name) else {
                return Ok(Some(format!("there is a strange chain {name}")));
            };
            let count = match chain {
                Chain::Affinities => sticky
                    .iter()
                    .map(|set| match set.kind {
                        SetKind::Sticky(seconds) => {
                            (self.layout.affinity_rules)(set.family, seconds).len()
                        }
                        _ => 0,
                    })
                    .sum(),
                chain => (self.layout.rules)(chain).len(),
            };
            expected.insert(name, count);
            if !CHAINS.contains(&chain) {
                chains.insert(chain);
            }
        }
        for chain in CHAINS {
            if !expected.contains_key(&chain.to_string()) {
                return Ok(Some(format!("chain {chain} is missing")));
            }
        }
        let found_rules = self.count_rules()?;
        for (name, count) in expected {
            let found = found_rules.get(&name).copied().unwrap_or(0);
            if found != count {
                return Ok(Some(format!(
                    "chain {name} has {found} rules instead of {count}"
                )));
            }
        }
        self.chains = chains;
        self.sticky = sticky;
        Ok(None)
    }

    fn list_sets(&mut self) -> io::Result<BTreeSet<String>> {
        let request = message::wrap(
            NfTablesMessage::GetSet(SetMessage {
                attributes: vec![SetAttribute::Table(TABLE.into())],
            }),
            0,
        );
        self.socket
            .dump(&request, |out: &mut BTreeSet<String>, payload| {
                if let Ok(set) = SetMessage::parse(payload)
                    && set.attributes.contains(&SetAttribute::Table(TABLE.into()))
                {
                    out.extend(set.attributes.into_iter().find_map(|a| match a {
                        SetAttribute::Name(name) => Some(name),
                        _ => None,
                    }));
                }
            })
    }

    fn list_chains(&mut self) -> io::Result<BTreeSet<String>> {
        let request = message::wrap(
            NfTablesMessage::GetChain(ChainMessage {
                attributes: Vec::new(),
            }),
            0,
        );
        self.socket
            .dump(&request, |out: &mut BTreeSet<String>, payload| {
                if let Ok(chain) = ChainMessage::parse(payload)
                    && chain
                        .attributes
                        .contains(&ChainAttribute::Table(TABLE.into()))
                {
                    out.extend(chain.attributes.into_iter().find_map(|a| match a {
                        ChainAttribute::Name(name) => Some(name),
                        _ => None,
                    }));
                }
            })
    }

    fn count_rules(&mut self) -> io::Result<HashMap<String, usize>> {
        let request = message::wrap(
            NfTablesMessage::GetRule(RuleMessage {
                attributes: vec![RuleAttribute::Table(TABLE.into())],
            }),
            0,
        );
        self.socket
            .dump(&request, |out: &mut HashMap<String, usize>, payload| {
                if let Ok(rule) = RuleMessage::parse(payload)
                    && rule
                        .attributes
                        .contains(&RuleAttribute::Table(TABLE.into()))
                {
                    let chain = rule.attributes.into_iter().find_map(|a| match a {
                        RuleAttribute::Chain(name) => Some(name),
                        _ => None,
                    });
                    if let Some(chain) = chain {
                        *out.entry(chain).or_default() += 1;
                    }
                }
            })
    }

    fn list_elements(&mut self, set: SetId) -> io::Result<Listed> {
        let request = message::wrap(
            NfTablesMessage::GetSetElement(SetElementMessage {
                attributes: vec![
                    SetElementList::Table(TABLE.into()),
                    SetElementList::Set(set.to_string()),
                ],
            }),
            0,
        );
        self.socket.dump(&request, |out: &mut Listed, payload| {
            wire::decode(payload, &mut |key, data| {
                out.insert(key, data);
            });
        })
    }

    fn compare(&mut self, elements: &[Element]) -> io::Result<Repair> {
        let mut by_set: HashMap<SetId, Vec<&Element>> = HashMap::new();
        for element in elements {
            by_set.entry(element.set).or_default().push(element);
        }
        let mut repair = Repair::default();
        let existing: Vec<SetId> = sets().chain(self.sticky.iter().copied()).collect();
        for set in &existing {
            if set.kind == SetKind::Affinity {
                continue;
            }
            let mut listed = self.list_elements(*set)?;
            let ranges = set.kind.has_ranges() && set.kind != SetKind::SourceRanges;
            let expected = by_set.remove(set).unwrap_or_default();
            if ranges {
                // The ends of neighbouring ranges belong together: all or nothing.
                let wanted: Listed = expected
                    .iter()
                    .flat_map(|e| wire::keys(&e.key))
                    .map(|key| (key, WireData::None))
                    .collect();
                // The kernel may list the address before the first range as the end of nothing.
                listed
                    .retain(|key, _| wanted.contains_key(key) || key.start.iter().any(|b| *b != 0));
                if listed != wanted {
                    repair.difference.2 += wanted.len().max(1);
                    repair
                        .remove
                        .extend(listed.into_keys().map(|key| (*set, key)));
                    repair.add.extend(expected.into_iter().copied());
                }
                continue;
            }
            for element in expected {
                for key in wire::keys(&element.key) {
                    match listed.remove(&key) {
                        None => {
                            repair.difference.0 += 1;
                            repair.add.push(*element);
                        }
                        Some(found) if found != wire::data(element) => {
                            repair.difference.2 += 1;
                            repair.remove.push((*set, key));
                            repair.add.push(*element);
                        }
                        Some(_) => {}
                    }
                }
            }
            repair.difference.1 += listed.len();
            repair
                .remove
                .extend(listed.into_keys().map(|key| (*set, key)));
        }
        // Elements of affinity sets that do not exist yet.
        for elements in by_set.into_values() {
            repair.difference.0 += elements.len();
            repair.add.extend(elements.into_iter().copied());
        }
        Ok(repair)
    }

    fn repair(&mut self, repair: Repair) -> io::Result<()> {
        let mut changes = Changes::all(repair.add);
        changes.sort();
        let chains = changes.chains();
        let sticky = changes.sticky();
        // An element with wrong data has to go right before the right one comes.
        let mut wrong: HashMap<(SetId, WireKey), ()> =
            repair.remove.into_iter().map(|key| (key, ())).collect();
        let mut packer = Packer {
            table: self,
            batch: Batch::default(),
        };
        packer.push_on_demand(&chains, &sticky)?;
        let mut ranges: Vec<(SetId, WireKey)> = wrong
            .keys()
            .filter(|(set, _)| set.kind.has_ranges())
            .cloned()
            .collect();
        // Newer kernels want the end of a range right after its beginning, and call anything else an element that does not exist. Where one range
        // follows the other at once, the end of the first comes before the beginning of the second.
        ranges.sort_unstable_by(|(set, a), (other, b)| {
            let order = (set, &a.start, !a.closes);
            order.cmp(&(other, &b.start, !b.closes))
        });
        for key in &ranges {
            wrong.remove(key);
        }
        packer.push_wire_removals(ranges)?;
        for group in groups(&changes.add, |e| e.set) {
            let mut atom = Batch::default();
            let replaced: Vec<(SetId, WireKey)> = group
                .iter()
                .flat_map(|e| wire::keys(&e.key).into_iter().map(|key| (e.set, key)))
                .filter(|key| wrong.remove(key).is_some())
                .collect();
            push_wire_removals(&mut atom, &replaced);
            atom.extend(&encode_adds(group));
            packer.push(&atom)?;
        }
        let mut rest: Vec<(SetId, WireKey)> = wrong.into_keys().collect();
        rest.sort_unstable_by_key(|(set, _)| (std::cmp::Reverse(set.kind.rank()), *set));
        packer.push_wire_removals(rest)?;
        packer.flush()?;
        self.chains.extend(chains);
        self.sticky.extend(sticky);
        Ok(())
    }

    /// Forgets the affinities that `wrong` says are wrong: a client, the frontend it used, and the endpoint it would return to. Returns how
    /// many there were.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused. An affinity that expired meanwhile is not an error.
    pub fn forget_affinities(
        &mut self,
        mut wrong: impl FnMut(IpAddr, &Frontend, (IpAddr, u16)) -> bool,
    ) -> io::Result<usize> {
        let mut forgotten = 0;
        for family in Family::ALL {
            let set = SetId::new(SetKind::Affinity, family);
            let listed = self.list_elements(set)?;
            let doomed: Vec<(SetId, WireKey)> = listed
                .into_iter()
                .filter(|(key, data)| {
                    wire::decode_affinity(set, key, data)
                        .is_some_and(|(client, frontend, to)| wrong(client, &frontend, to))
                })
                .map(|(key, _)| (set, key))
                .collect();
            forgotten += doomed.len();
            let mut batch = Batch::default();
            push_wire_removals(&mut batch, &doomed);
            match self.commit(&batch) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    for one in doomed {
                        let mut batch = Batch::default();
                        push_wire_removals(&mut batch, std::slice::from_ref(&one));
                        match self.commit(&batch) {
                            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                            outcome => outcome?,
                        }
                    }
                }
                outcome => outcome?,
            }
        }
        Ok(forgotten)
    }
}

/// Fills transactions up to what fits.
struct Packer<'a> {
    table: &'a mut NetlinkTable,
    batch: Batch,
}

impl Packer<'_> {
    /// Adds what must not be torn apart.
    fn push(&mut self, atom: &Batch) -> io::Result<()> {
        if !self.batch.is_empty() && self.batch.len() + atom.len() > self.table.socket.capacity() {
            self.flush()?;
        }
        self.batch.extend(atom);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.table.commit(&batch)
    }

    fn push_on_demand(
        &mut self,
        chains: &BTreeSet<Chain>,
        sticky: &BTreeSet<SetId>,
    ) -> io::Result<()> {
        let chains: Vec<Chain> = chains.difference(&self.table.chains).copied().collect();
        let layout = self.table.layout;
        for chain in chains {
            let mut atom = Batch::default();
            atom.push(message::new_chain(chain));
            for rule in (layout.rules)(chain) {
                atom.push(message::new_rule(chain, &rule));
            }
            self.push(&atom)?;
        }
        let sticky: Vec<SetId> = sticky.difference(&self.table.sticky).copied().collect();
        for set in sticky {
            let SetKind::Sticky(seconds) = set.kind else {
                continue;
            };
            let mut atom = Batch::default();
            // Sets of one transaction need different numbers, and these names are unique.
            let id = 1 << 30 | seconds << 1 | u32::from(set.family == Family::V6);
            atom.push(message::new_set(set, id));
            for rule in (layout.affinity_rules)(set.family, seconds) {
                atom.push(message::new_rule(Chain::Affinities, &rule));
            }
            self.push(&atom)?;
        }
        Ok(())
    }

    fn push_wire_removals(&mut self, removals: Vec<(SetId, WireKey)>) -> io::Result<()> {
        for group in groups(&removals, |(set, _)| *set) {
            let mut atom = Batch::default();
            push_wire_removals(&mut atom, group);
            self.push(&atom)?;
        }
        Ok(())
    }
}

/// Runs of the same set, none longer than a message may be.
fn groups<T>(items: &[T], set: impl Fn(&T) -> SetId) -> impl Iterator<Item = &[T]> {
    items
        .chunk_by(move |a, b| set(a) == set(b))
        .flat_map(|run| run.chunks(ELEMENTS_PER_MESSAGE))
}

/// The removals from one set; they are sorted by set.
fn removals_of(removals: &[Element], set: SetId) -> &[Element] {
    let start = removals.iter().position(|e| e.set == set);
    start.map_or(&[], |start| {
        let rest = &removals[start..];
        let end = rest.iter().position(|e| e.set != set);
        &rest[..end.unwrap_or(rest.len())]
    })
}

fn encode_adds(group: &[Element]) -> Batch {
    let mut batch = Batch::default();
    if let Some(first) = group.first() {
        let mut list = Vec::with_capacity(group.len());
        for element in group {
            wire::encode(element, &mut list);
        }
        batch.push(message::elements(first.set, list, true));
    }
    batch
}

fn encode_removals(group: &[Element]) -> Batch {
    let mut batch = Batch::default();
    if let Some(first) = group.first() {
        let mut list = Vec::with_capacity(group.len());
        for element in group {
            wire::encode_removal(&element.key, &mut list);
        }
        batch.push(message::elements(first.set, list, false));
    }
    batch
}

/// The kernel cannot change an element: it goes and comes again, in one transaction.
fn encode_replacements(group: &[(Element, Data)]) -> Batch {
    let old: Vec<Element> = group.iter().map(|(element, _)| *element).collect();
    let new: Vec<Element> = group
        .iter()
        .map(|(element, data)| Element {
            data: *data,
            ..*element
        })
        .collect();
    let mut batch = encode_removals(&old);
    batch.extend(&encode_adds(&new));
    batch
}

fn push_wire_removals(batch: &mut Batch, removals: &[(SetId, WireKey)]) {
    for group in groups(removals, |(set, _)| *set) {
        let list: Vec<ListAttribute<SetElementAttribute>> = group
            .iter()
            .map(|(_, key)| ListAttribute::Element(wire::encode_key(key)))
            .collect();
        if let Some((set, _)) = group.first() {
            batch.push(message::elements(*set, list, false));
        }
    }
}
