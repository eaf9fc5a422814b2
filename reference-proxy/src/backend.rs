//! The two ways to program the kernel.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    process::{Command, Stdio},
};

use crate::{
    nft::{Difference, NetlinkTable},
    ruleset::{
        Changes, Element, Frontend, SetId, SetKind, TABLE, affinity_rules, element_block,
        layout_text, render, rule_text, rules,
    },
};

/// Where the ruleset goes.
#[derive(Debug)]
pub enum Backend {
    /// Netlink.
    Netlink(NetlinkTable),
    /// The `nft` command. It is slower by a factor of a hundred for small changes, and needed only where netlink does not do.
    Command(CommandBackend),
}

impl Backend {
    /// Makes the kernel's table have exactly these elements, changing as little as possible. Returns what had to be changed.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused the change.
    pub fn adopt(&mut self, elements: impl Fn() -> Vec<Element>) -> io::Result<Option<Difference>> {
        match self {
            Self::Netlink(table) => table.adopt(elements),
            Self::Command(command) => command.adopt(elements),
        }
    }

    /// Changes elements.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub fn apply(&mut self, changes: &mut Changes) -> io::Result<()> {
        match self {
            Self::Netlink(table) => table.apply(changes),
            Self::Command(command) => command.apply(changes),
        }
    }

    /// Compares the kernel's table with these elements.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed.
    pub fn difference(&mut self, elements: &[Element]) -> io::Result<Option<Difference>> {
        self.reader().difference(elements)
    }

    /// Why the kernel's table is not of this layout, `None` if it is; elements are not looked at.
    ///
    /// # Errors
    ///
    /// The kernel could not be listed.
    pub fn layout_difference(&mut self) -> io::Result<Option<String>> {
        self.reader().layout_difference()
    }

    /// Forgets affinities, see [`NetlinkTable::forget_affinities`].
    ///
    /// # Errors
    ///
    /// The kernel could not be listed or refused.
    pub fn forget_affinities(
        &mut self,
        wrong: impl FnMut(IpAddr, &Frontend, (IpAddr, u16)) -> bool,
    ) -> io::Result<usize> {
        self.reader().forget_affinities(wrong)
    }

    /// Deletes the table.
    ///
    /// # Errors
    ///
    /// The kernel refused.
    pub fn delete(&mut self) -> io::Result<()> {
        self.reader().delete()
    }

    /// The address by which notifications name this backend's own changes, if they are recognisable.
    pub fn port(&self) -> Option<u32> {
        match self {
            Self::Netlink(table) => table.port().ok(),
            Self::Command(_) => None,
        }
    }

    fn reader(&mut self) -> &mut NetlinkTable {
        match self {
            Self::Netlink(table) => table,
            Self::Command(command) => &mut command.reader,
        }
    }
}

/// Runs `nft -f -` for each transaction.
#[derive(Debug)]
pub struct CommandBackend {
    /// Listing is done over netlink all the same.
    reader: NetlinkTable,
    chains: std::collections::BTreeSet<crate::ruleset::Chain>,
    sticky: std::collections::BTreeSet<SetId>,
}

impl CommandBackend {
    /// A backend that has not looked at the kernel yet.
    ///
    /// # Errors
    ///
    /// The netlink socket for listing could not be made.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            reader: NetlinkTable::open()?,
            chains: Default::default(),
            sticky: Default::default(),
        })
    }

    fn adopt(&mut self, elements: impl Fn() -> Vec<Element>) -> io::Result<Option<Difference>> {
        let elements = elements();
        let difference = match self.reader.difference(&elements) {
            Ok(None) => return Ok(None),
            Ok(difference) => difference,
            Err(error) => Some(Difference::Layout(format!(
                "failed to list the table: {error}"
            ))),
        };
        let text = format!(
            "table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n{}",
            render(&elements)
        );
        nft(&text)?;
        let changes = Changes::all(elements);
        self.chains = changes.chains();
        self.sticky = changes.sticky();
        Ok(difference)
    }

    fn apply(&mut self, changes: &mut Changes) -> io::Result<()> {
        changes.sort();
        let chains: Vec<_> = changes.chains().difference(&self.chains).copied().collect();
        let sticky: Vec<_> = changes.sticky().difference(&self.sticky).copied().collect();
        let mut text = String::new();
        if !chains.is_empty() || !sticky.is_empty() {
            // Only what is new: a chain that is named again would get its rules twice.
            let whole = layout_text(&Default::default(), &sticky.iter().copied().collect());
            text.push_str(&format!("table inet {TABLE} {{\n"));
            for line in whole
                .lines()
                .filter(|line| line.starts_with("\tset sticky"))
            {
                text.push_str(line);
                text.push('\n');
            }
            for chain in &chains {
                text.push_str(&format!("\tchain {chain} {{\n"));
                for rule in rules(*chain) {
                    text.push_str(&format!("\t\t{}\n", rule_text(&rule)));
                }
                text.push_str("\t}\n");
            }
            text.push_str("}\n");
            for set in &sticky {
                if let SetKind::Sticky(seconds) = set.kind {
                    for rule in affinity_rules(set.family, seconds) {
                        text.push_str(&format!(
                            "add rule inet {TABLE} {} {}\n",
                            crate::ruleset::Chain::Affinities,
                            rule_text(&rule)
                        ));
                    }
                }
            }
        }
        let ranges = |e: &&Element| e.set.kind.has_ranges();
        for element in changes.remove.iter().filter(ranges) {
            text.push_str(&element_block("delete", element.set, [element]));
        }
        for run in changes.add.chunk_by(|a, b| a.set == b.set) {
            text.push_str(&element_block("add", run[0].set, run));
        }
        for run in changes.replace.chunk_by(|a, b| a.0.set == b.0.set) {
            let set = run[0].0.set;
            text.push_str(&element_block(
                "delete",
                set,
                run.iter().map(|(old, _)| old),
            ));
            let new: Vec<Element> = run
                .iter()
                .map(|(old, data)| Element {
                    data: *data,
                    ..*old
                })
                .collect();
            text.push_str(&element_block("add", set, &new));
        }
        let others: Vec<Element> = changes
            .remove
            .iter()
            .filter(|e| !e.set.kind.has_ranges())
            .copied()
            .collect();
        for run in others.chunk_by(|a, b| a.set == b.set) {
            text.push_str(&element_block("delete", run[0].set, run));
        }
        if text.is_empty() {
            return Ok(());
        }
        nft(&text)?;
        self.chains.extend(chains);
        self.sticky.extend(sticky);
        Ok(())
    }
}

fn nft(text: &str) -> io::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let first = stderr.lines().next().unwrap_or("no message").to_owned();
    Err(io::Error::other(format!("nft refused: {first}")))
}
