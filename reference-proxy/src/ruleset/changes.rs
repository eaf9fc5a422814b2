//! What has to happen to the elements.

use std::collections::BTreeSet;

use super::{
    element::{Data, Element, SetId, SetKind},
    layout,
    rule::Chain,
};

/// A difference between two sets of elements. No key occurs twice in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New elements.
    pub add: Vec<Element>,
    /// Elements as they are, and the data that they get.
    pub replace: Vec<(Element, Data)>,
    /// Elements that go.
    pub remove: Vec<Element>,
}

impl Changes {
    /// Everything is new.
    pub fn all(elements: Vec<Element>) -> Self {
        Self {
            add: elements,
            ..Self::default()
        }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.replace.is_empty() && self.remove.is_empty()
    }

    /// Brings the elements into the order in which no intermediate state is wrong, in case one transaction cannot hold them: additions by
    /// rank, then removals the other way round.
    pub fn sort(&mut self) {
        self.add.sort_unstable_by_key(|e| (e.set.kind.rank(), *e));
        self.replace
            .sort_unstable_by_key(|(e, _)| (e.set.kind.rank(), *e));
        self.remove
            .sort_unstable_by_key(|e| (std::cmp::Reverse(e.set.kind.rank()), *e));
    }

    fn coming(&self) -> impl Iterator<Item = Element> + '_ {
        let replaced = self.replace.iter().map(|(element, data)| Element {
            data: *data,
            ..*element
        });
        self.add.iter().copied().chain(replaced)
    }

    /// The chains made on demand that the new elements lead to, each after those it refers to.
    pub fn chains(&self) -> BTreeSet<Chain> {
        self.coming()
            .filter(|element| element.set.is_verdict_map())
            .flat_map(|element| layout::chains_for(&element).collect::<Vec<_>>())
            .collect()
    }

    /// The affinity sets that the new elements are in.
    pub fn sticky(&self) -> BTreeSet<SetId> {
        self.add
            .iter()
            .map(|element| element.set)
            .filter(|set| matches!(set.kind, SetKind::Sticky(_)))
            .collect()
    }
}
