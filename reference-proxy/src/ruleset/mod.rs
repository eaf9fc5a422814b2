//! The ruleset as a typed value: a fixed layout of chains, rules and sets, and elements for everything that varies.

mod changes;
mod element;
mod layout;
mod rule;
mod text;

pub use self::{
    changes::Changes,
    element::{Data, Element, Family, Frontend, Key, Protocol, SetId, SetKind, Verdict, View},
    layout::{AFFINITY_SIZE, CHAINS, TABLE, affinity_rules, chains_for, rules, sets},
    rule::{BaseHook, Chain, Field, Rule, Statement},
    text::{digest, element_block, element_text, layout_text, render, rule_text},
};

#[cfg(test)]
mod tests;
