//! The part of a node's ruleset that is about a failing cell: rules and elements that name the frontend, and the chains that these lead to.
//!
//! Blocks in braces (`nft list ruleset`, and the harness's own dump) and the lines of `iptables-save` are understood as far as is needed:
//! which chain a line is in, and which chains it leads to.

use std::collections::BTreeSet;
use std::path::Path;

use super::excerpt::{Excerpt, Line};
use super::{Names, text_of};

/// Lines that are shown.
const MAX_LINES: usize = 70;

/// Chains that are followed.
const MAX_CHAINS: usize = 24;

/// The relevant part of the first file that has any; `None` where there is no file at all.
pub(super) fn of_node(files: &Path, names: &Names) -> Option<Excerpt> {
    let v6 = names.frontend?.is_ipv6();
    let legacy = if v6 { "ip6tables.txt" } else { "iptables.txt" };
    let mut empty = None;
    // Proxies that use iptables are read best in its own words; nft shows them too.
    for file in [legacy, "nft.txt", "ruleset.txt"] {
        let Some(text) = text_of(files, file) else {
            continue;
        };
        let lines: Vec<Rule> = if file == legacy {
            saved(&text)
        } else {
            blocks(&text)
        };
        let shown = relevant(file, &lines, names);
        if !shown.lines.is_empty() {
            return Some(shown);
        }
        empty = Some(shown);
    }
    empty
}

/// A line, and where it stands.
struct Rule<'a> {
    text: &'a str,
    /// The chain, set or map that it belongs to.
    block: &'a str,
    /// The headings above it, as they are written.
    heads: Vec<&'a str>,
}

/// Lines in braces, without those that only close a block.
fn blocks(text: &str) -> Vec<Rule<'_>> {
    let mut heads: Vec<&str> = Vec::new();
    let mut rules = Vec::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed == "}" || trimmed.is_empty() {
            if trimmed == "}" {
                heads.pop();
            }
            continue;
        }
        // `chain c {` and `chain c { type filter ...`, but not `elements = { a, b }`.
        let opens = trimmed.matches('{').count() > trimmed.matches('}').count();
        let elements = trimmed.starts_with("elements");
        if opens && !elements && heads.len() < 2 {
            heads.push(line);
            continue;
        }
        let block = heads.last().map_or("", |head| name_of(head));
        rules.push(Rule {
            text: line,
            block,
            heads: heads.clone(),
        });
    }
    rules
}

/// `chain NAME {` is NAME.
fn name_of(head: &str) -> &str {
    head.split_whitespace().nth(1).unwrap_or_default()
}

/// The rules of `iptables-save`.
fn saved(text: &str) -> Vec<Rule<'_>> {
    let mut table = "";
    let mut rules = Vec::new();
    for line in text.lines() {
        if line.starts_with('*') {
            table = line;
        }
        if let Some(rest) = line.strip_prefix("-A ") {
            rules.push(Rule {
                text: line,
                block: rest.split(' ').next().unwrap_or_default(),
                heads: vec![table],
            });
        }
    }
    rules
}

fn relevant(file: &str, rules: &[Rule<'_>], names: &Names) -> Excerpt {
    let dialled = names.frontend.map(|frontend| {
        if names.node_port {
            frontend.port().to_string()
        } else {
            frontend.ip().to_string()
        }
    });
    let hits: Vec<Option<usize>> = rules
        .iter()
        .map(|rule| {
            let dialled = dialled.as_deref();
            dialled.and_then(|key| find_word(rule.text, key))
        })
        .collect();
    let mut follow: Vec<&str> = Vec::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut chosen: BTreeSet<usize> = BTreeSet::new();
    for (at, (rule, hit)) in rules.iter().zip(&hits).enumerate() {
        if let Some(hit) = hit {
            chosen.insert(at);
            // Of an element only its own target counts, not those of its neighbours.
            let rest = &rule.text[*hit..];
            let own = rest.split(',').next().unwrap_or(rest);
            follow.extend(targets(own));
        }
    }
    while let Some(chain) = follow.pop() {
        if known.len() >= MAX_CHAINS || !known.insert(chain) {
            continue;
        }
        for (at, rule) in rules.iter().enumerate() {
            if rule.block == chain {
                chosen.insert(at);
                follow.extend(targets(rule.text));
            }
        }
    }
    let mut excerpt = Excerpt {
        file: file.to_owned(),
        left_out: rules.len(),
        ..Excerpt::default()
    };
    let mut heads: &[&str] = &[];
    for at in &chosen {
        if excerpt.lines.len() >= MAX_LINES {
            break;
        }
        let rule = &rules[*at];
        let same = heads.iter().zip(&rule.heads).take_while(|(a, b)| a == b);
        let same = same.count();
        for head in &rule.heads[same..] {
            excerpt.lines.push(Line::new(head, false));
        }
        heads = &rule.heads;
        let line = around(rule.text, hits[*at]);
        excerpt.lines.push(Line::new(&line, hits[*at].is_some()));
        excerpt.left_out -= 1;
    }
    excerpt
}

/// A long line, such as one with all elements of a set, from a little before what it is shown for.
fn around(line: &str, hit: Option<usize>) -> String {
    let from = hit.unwrap_or(0).saturating_sub(120);
    if line.len() <= 320 || from == 0 {
        return line.to_owned();
    }
    let from = (from..).find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    format!("… {}", &line[from..])
}

/// The chains that a rule leads to.
fn targets(rule: &str) -> impl Iterator<Item = &str> {
    let words: Vec<&str> = rule
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '{' | '}' | ';'))
        .filter(|word| !word.is_empty())
        .collect();
    let pairs = words.windows(2).map(|pair| (pair[0], pair[1]));
    let found: Vec<&str> = pairs
        .filter(|(word, _)| matches!(*word, "goto" | "jump" | "-j" | "-g"))
        .map(|(_, target)| target)
        .collect();
    found.into_iter()
}

/// Where a text has an address or a number that is not only a part of a longer one.
fn find_word(text: &str, key: &str) -> Option<usize> {
    let part = |c: char| c.is_ascii_alphanumeric();
    text.match_indices(key).map(|(at, _)| at).find(|at| {
        let before = text[..*at].chars().next_back();
        let mut after = text[at + key.len()..].chars();
        let (next, second) = (after.next(), after.next());
        let begins = before.is_none_or(|c| !part(c) && c != '.' && c != ':')
            || text[..*at].ends_with("::ffff:");
        let goes_on = match next {
            Some(c) if part(c) => true,
            Some('.') => second.is_some_and(|c| c.is_ascii_digit()),
            Some(':') => key.contains(':') && second.is_some_and(|c| c.is_ascii_hexdigit()),
            _ => false,
        };
        begins && !goes_on
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFT: &str = "\
table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.1.11 . tcp . 80 : goto other, 10.96.1.1 . tcp . 80 : goto service-web, 10.96.1.2 . tcp . 80 : goto third }
	}

	chain service-web {
		numgen random mod 1 vmap { 0 : goto endpoint-1 }
	}

	chain endpoint-1 {
		ip saddr 10.1.0.1 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.1.0.1:8080
	}

	chain other {
		drop
	}
}
";

    fn names(frontend: &str) -> Names {
        Names {
            frontend: Some(frontend.parse().unwrap()),
            ..Names::default()
        }
    }

    fn shown(excerpt: &Excerpt) -> Vec<&str> {
        excerpt.lines.iter().map(|line| line.text.trim()).collect()
    }

    #[test]
    fn chains_are_followed_from_the_frontend() {
        let excerpt = relevant("nft.txt", &blocks(NFT), &names("10.96.1.1:80"));
        let lines = shown(&excerpt);
        assert_eq!(lines[0], "table ip kube-proxy {");
        assert_eq!(lines[1], "map service-ips {");
        assert!(excerpt.lines[2].hit);
        assert_eq!(
            &lines[3..],
            [
                "chain service-web {",
                "numgen random mod 1 vmap { 0 : goto endpoint-1 }",
                "chain endpoint-1 {",
                "ip saddr 10.1.0.1 jump mark-for-masquerade",
                "meta l4proto tcp dnat to 10.1.0.1:8080",
            ]
        );
        let none = relevant("nft.txt", &blocks(NFT), &names("10.96.1.3:80"));
        assert!(none.lines.is_empty() && none.left_out > 0);
    }

    #[test]
    fn saved_rules_are_followed_too() {
        let text = "*nat\n:KUBE-SVC-A - [0:0]\n-A KUBE-SERVICES -d 10.96.1.1/32 -p tcp -j KUBE-SVC-A\n-A KUBE-SERVICES -d 10.96.1.2/32 -j KUBE-SVC-B\n-A KUBE-SVC-A -j KUBE-SEP-1\n-A KUBE-SVC-B -j KUBE-SEP-2\n-A KUBE-SEP-1 -j DNAT --to-destination 10.1.0.1:8080\nCOMMIT\n";
        let excerpt = relevant("iptables.txt", &saved(text), &names("10.96.1.1:80"));
        assert_eq!(
            shown(&excerpt),
            [
                "*nat",
                "-A KUBE-SERVICES -d 10.96.1.1/32 -p tcp -j KUBE-SVC-A",
                "-A KUBE-SVC-A -j KUBE-SEP-1",
                "-A KUBE-SEP-1 -j DNAT --to-destination 10.1.0.1:8080",
            ]
        );
    }

    #[test]
    fn a_part_of_an_address_is_another_address() {
        for (text, key, found) in [
            ("10.96.1.1 . tcp", "10.96.1.1", true),
            ("10.96.1.11 . tcp", "10.96.1.1", false),
            ("110.96.1.1 . tcp", "10.96.1.1", false),
            ("dnat to 10.96.1.1:80", "10.96.1.1", true),
            ("10.96.1.1.5", "10.96.1.1", false),
            ("fd00::1 . tcp", "fd00::1", true),
            ("fd00::1:2", "fd00::1", false),
            ("2fd00::1", "fd00::1", false),
            ("tcp . 30086 :", "30086", true),
            ("tcp . 300861 :", "30086", false),
            ("10.96.1.12, 10.96.1.1", "10.96.1.1", true),
        ] {
            assert_eq!(find_word(text, key).is_some(), found, "{text} {key}");
        }
    }

    #[test]
    fn loops_of_chains_end() {
        let text = "table ip t {\n\tchain a {\n\t\tip daddr 1.2.3.4 jump b\n\t}\n\tchain b {\n\t\tjump a\n\t\tjump b\n\t}\n}\n";
        let excerpt = relevant("nft.txt", &blocks(text), &names("1.2.3.4:1"));
        assert_eq!(excerpt.lines.len(), 6);
    }
}
