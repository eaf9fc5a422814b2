//! Texts from candidates and scenarios cannot act in a report, and no candidate is so bad that its report is too long.

mod fixture;

use fixture::{HOSTILE, Run, hostile};
use reports::event::Verdict;
use reports::{junit, markdown};

#[test]
fn junit_carries_hostile_names_unbroken() {
    let xml = junit::render(&hostile().report());
    let document = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let suite = &document.test_suites[0];
    assert_eq!(suite.test_cases.len(), 4);
    // Attributes may lose nothing but the difference between kinds of white space.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = words(&format!("{}0", reports::text::visible(HOSTILE)));
    assert_eq!(words(suite.test_cases[0].name.as_str()), wanted);
    for c in xml.chars() {
        let legal = matches!(c, '\n' | '\t' | ' '..='\u{fffd}' | '\u{10000}'..);
        assert!(legal, "{c:?} is not allowed in XML");
        assert!(
            !('\u{202a}'..='\u{202e}').contains(&c),
            "{c:?} turns the text around"
        );
    }
}

#[test]
fn markdown_lets_nothing_act() {
    let page = markdown::render(&hostile().report());
    for c in page.chars() {
        assert!(c == '\n' || !c.is_control(), "{c:?} acts in a terminal");
    }
    // Code spans are inert; what is left of a line without them must hold no live HTML, link or mention.
    let ours = [
        "details", "/details", "summary", "/summary", "code", "/code", "sub", "/sub",
    ];
    for line in page.lines() {
        let prose = without_code(line);
        for (at, _) in prose.match_indices("](") {
            assert!(prose[..at].ends_with('\\'), "a link is live in {line:?}");
        }
        for (at, _) in prose.match_indices('<') {
            let tag = prose[at + 1..].split('>').next().unwrap();
            assert!(ours.contains(&tag), "foreign tag {tag:?} in {line:?}");
        }
        for live in [
            "http://",
            "@kubernetes",
            "kubernetes#1",
            "www.evil",
            " **bold**",
            "~~s",
        ] {
            assert!(!prose.contains(live), "{live:?} is live in {line:?}");
        }
    }
    let opened = page.matches("<details>").count();
    let closed = page.matches("\n</details>\n").count();
    assert_eq!(opened, closed);
}

#[test]
fn hostile_texts_keep_the_tables_in_shape() {
    let page = markdown::render(&hostile().report());
    let mut columns = None;
    for line in page.lines() {
        if !line.starts_with('|') {
            columns = None;
            continue;
        }
        // Cells end at bars that are not escaped, inside code too.
        let bars = line
            .replace("\\\\", "")
            .replace("\\|", "")
            .matches('|')
            .count();
        assert_eq!(*columns.get_or_insert(bars), bars, "{line:?}");
    }
}

/// The line without its code spans: a span ends at a run of as many backticks as began it.
fn without_code(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        if rest[..start].ends_with('\\') {
            out.push_str(&rest[..=start]);
            rest = &rest[start + 1..];
            continue;
        }
        out.push_str(&rest[..start]);
        let fence = rest[start..].chars().take_while(|c| *c == '`').count();
        let mut at = start + fence;
        loop {
            let Some(next) = rest[at..].find('`') else {
                panic!("a code span without end in {line:?}");
            };
            at += next;
            let run = rest[at..].chars().take_while(|c| *c == '`').count();
            at += run;
            if run == fence {
                break;
            }
        }
        rest = &rest[at..];
    }
    out + rest
}

#[test]
fn a_candidate_that_fails_everything_still_fits_into_a_comment() {
    let mut run = Run::new(1);
    for number in 0..3000 {
        let verdict = match number % 3 {
            0 => Verdict::Fail,
            1 => Verdict::Infra,
            _ => Verdict::Skip,
        };
        run.case(
            &format!("case-{number}[ipv4]"),
            &["SVC-1", "SVC-2"],
            &[verdict],
        );
        if verdict == Verdict::Fail {
            let long = "x".repeat(5000);
            let failure = run.last_failure();
            (failure.expected, failure.actual) = (long.clone(), long);
        }
    }
    let report = run.report();
    let page = markdown::render(&report);
    assert!(page.len() <= markdown::MAX_BYTES, "{} bytes", page.len());
    assert!(page.starts_with("# ❌ Not conformant"));
    for part in [
        "## Failures",
        "## Infrastructure trouble",
        "Skipped (1000)",
        "About this run",
        "more, see",
    ] {
        assert!(page.contains(part), "{part:?} is missing");
    }
    assert!(!page.contains(&"x".repeat(300)));
    // The other two formats leave nothing out.
    let xml = junit::render(&report);
    let document = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    assert_eq!((document.tests, document.failures), (3000, 1000));
}
