//! `junit.xml` against the schema that readers of JUnit files share.
//!
//! There is no standard. The rules here are those of the schema of Jenkins' xUnit plugin (`junit-10.xsd`), the one with `flakyFailure` and `rerunFailure`,
//! in our words, and four things that it has not and that readers take or ignore: properties of a testcase (pytest writes them), `assertions` (JUnit 5's
//! schema has it), the time of a rerun (Surefire's has it) and the number of skipped testcases of the whole document.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Run, hostile, skip};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use reports::event::{Experiment, FinishReason, SkipKind, Verdict};
use reports::junit;

use Verdict::{Fail, Infra, Pass, Skip};

/// What an element may hold.
struct Rule {
    children: &'static [&'static str],
    required: &'static [&'static str],
    optional: &'static [&'static str],
    /// Whether text may be in it.
    text: bool,
}

fn rule(element: &str) -> Option<Rule> {
    const OUTCOME: Rule = Rule {
        children: &[],
        required: &[],
        optional: &["type", "message"],
        text: true,
    };
    const OUTPUT: Rule = Rule {
        children: &[],
        required: &[],
        optional: &[],
        text: true,
    };
    Some(match element {
        "testsuites" => Rule {
            children: &["testsuite"],
            required: &[],
            optional: &["name", "time", "tests", "failures", "errors", "skipped"],
            text: false,
        },
        "testsuite" => Rule {
            children: &["properties", "testcase", "system-out", "system-err"],
            required: &["name", "tests", "failures", "errors"],
            optional: &["time", "skipped", "timestamp", "hostname", "id", "package"],
            text: false,
        },
        "testcase" => Rule {
            children: &[
                "properties",
                "skipped",
                "error",
                "failure",
                "rerunFailure",
                "rerunError",
                "flakyFailure",
                "flakyError",
                "system-out",
                "system-err",
            ],
            required: &["name"],
            optional: &["classname", "time", "assertions"],
            text: false,
        },
        "properties" => Rule {
            children: &["property"],
            required: &[],
            optional: &[],
            text: false,
        },
        "property" => Rule {
            children: &[],
            required: &["name", "value"],
            optional: &[],
            text: false,
        },
        "skipped" | "error" | "failure" => OUTCOME,
        "rerunFailure" | "rerunError" | "flakyFailure" | "flakyError" => Rule {
            children: &["stackTrace", "system-out", "system-err"],
            required: &["type"],
            optional: &["message", "time"],
            text: true,
        },
        "stackTrace" | "system-out" | "system-err" => OUTPUT,
        _ => return None,
    })
}

/// The names that have to come in this order in a testcase.
const ORDER: [&str; 4] = ["properties", "outcome", "again", "output"];

fn place(element: &str) -> usize {
    let kind = match element {
        "properties" => "properties",
        "skipped" | "error" | "failure" => "outcome",
        "system-out" | "system-err" => "output",
        _ => "again",
    };
    ORDER.iter().position(|name| *name == kind).unwrap()
}

/// An element that is open.
struct Open {
    name: String,
    attributes: BTreeMap<String, String>,
    children: Vec<String>,
    /// Testcases below it, by their outcome.
    counts: [u64; 4],
}

/// What is wrong with a document, if anything is.
fn check(xml: &str) -> Result<(), String> {
    let mut reader = Reader::from_str(xml);
    let mut open: Vec<Open> = Vec::new();
    let mut roots = Vec::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(tag) => begin(&mut open, &tag)?,
            Event::Empty(tag) => {
                begin(&mut open, &tag)?;
                roots.extend(end(&mut open)?);
            }
            Event::End(_) => roots.extend(end(&mut open)?),
            Event::Text(text) => {
                let text = text.decode().map_err(|error| error.to_string())?;
                let inside = open.last().map_or("", |open| &open.name);
                let allowed = rule(inside).is_some_and(|rule| rule.text);
                if !allowed && !text.trim().is_empty() {
                    return Err(format!("text in {inside}: {text}"));
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    match roots.as_slice() {
        [root] if root == "testsuites" && open.is_empty() => Ok(()),
        other => Err(format!("roots: {other:?}")),
    }
}

fn begin(open: &mut Vec<Open>, tag: &BytesStart) -> Result<(), String> {
    let name =
        String::from_utf8(tag.name().as_ref().to_vec()).map_err(|error| error.to_string())?;
    let rule = rule(&name).ok_or(format!("unknown element {name}"))?;
    if let Some(parent) = open.last_mut() {
        let known =
            self::rule(&parent.name).is_some_and(|rule| rule.children.contains(&name.as_str()));
        if !known {
            return Err(format!("{name} in {}", parent.name));
        }
        if let (Some(last), "testcase") = (parent.children.last(), parent.name.as_str())
            && place(last) > place(&name)
        {
            return Err(format!("{name} after {last}"));
        }
        parent.children.push(name.clone());
    }
    let mut attributes = BTreeMap::new();
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = String::from_utf8(attribute.key.as_ref().to_vec())
            .map_err(|error| error.to_string())?;
        let value =
            String::from_utf8(attribute.value.to_vec()).map_err(|error| error.to_string())?;
        if !rule.required.contains(&key.as_str()) && !rule.optional.contains(&key.as_str()) {
            return Err(format!("attribute {key} of {name}"));
        }
        attributes.insert(key, value);
    }
    if let Some(missing) = rule
        .required
        .iter()
        .find(|key| !attributes.contains_key(**key))
    {
        return Err(format!("{name} has no {missing}"));
    }
    for key in ["tests", "failures", "errors", "skipped", "assertions"] {
        if attributes
            .get(key)
            .is_some_and(|value| value.parse::<u64>().is_err())
        {
            return Err(format!("{key} of {name} is no number"));
        }
    }
    if attributes
        .get("time")
        .is_some_and(|time| time.parse::<f64>().is_err())
    {
        return Err(format!("the time of {name} is none"));
    }
    open.push(Open {
        name,
        attributes,
        children: Vec::new(),
        counts: [0; 4],
    });
    Ok(())
}

/// Closes the innermost element; its name, if it was the outermost.
fn end(open: &mut Vec<Open>) -> Result<Option<String>, String> {
    let mut done = open.pop().ok_or("an end without a beginning")?;
    if done.name == "testcase" {
        let has = |name: &str| done.children.iter().filter(|child| *child == name).count() as u64;
        let outcomes = [has("failure"), has("error"), has("skipped")];
        if outcomes.iter().sum::<u64>() > 1 {
            return Err(format!("{:?} has several outcomes", done.attributes));
        }
        let [failures, errors, skipped] = outcomes;
        done.counts = [1, failures, errors, skipped];
    } else if done.name.starts_with("testsuite") {
        let told = ["tests", "failures", "errors", "skipped"].map(|key| {
            let value = done.attributes.get(key);
            value.map_or(0, |value| value.parse::<u64>().unwrap_or(u64::MAX))
        });
        if told != done.counts {
            return Err(format!(
                "{} says {told:?} and has {:?}",
                done.name, done.counts
            ));
        }
    }
    let Some(parent) = open.last_mut() else {
        return Ok(Some(done.name));
    };
    for (sum, count) in parent.counts.iter_mut().zip(done.counts) {
        *sum += count;
    }
    Ok(None)
}

fn mixed() -> Run {
    let mut run = Run::new(3);
    run.case("a-pass[ipv4]", &["SVC-1"], &[Pass; 3]);
    run.case("b-fail[ipv4]", &["SVC-1"], &[Fail; 3]);
    run.case("c-flaky[ipv4]", &["SVC-2"], &[Fail, Pass, Fail]);
    run.case("d-infra[ipv4]", &["NP-1"], &[Infra; 3]);
    run.case("e-skip[ipv4]", &["NP-1"], &[Skip; 3]);
    run.case("f-some[ipv4]", &["NP-1"], &[Pass, Skip, Pass]);
    run.plan("g-not-run[ipv4]", &["NP-1"]);
    run.plan("h-planned[ipv4]", &["NP-1"]).skip = Some(skip(SkipKind::CandidateUnsupported));
    run.experiment("b-fail[ipv4]", Experiment::Alone, 5, 5, 0);
    run
}

#[test]
fn every_kind_of_report_follows_the_schema() {
    let mut stopped = mixed();
    stopped.end = Some(FinishReason::Interrupted);
    let mut tolerated = mixed();
    tolerated.start.options.flake_budget = 1;
    let mut nothing = Run::new(1);
    nothing.plan("sctp[ipv4]", &["SVC-1"]).skip = Some(skip(SkipKind::ToolMissing));
    let mut many = Run::new(1_000);
    let verdicts: Vec<Verdict> = (0..1_000)
        .map(|n| if n % 2 == 0 { Fail } else { Pass })
        .collect();
    many.case("often[ipv4]", &["SVC-1"], &verdicts);
    for (name, run) in [
        ("mixed", mixed()),
        ("stopped", stopped),
        ("tolerated", tolerated),
        ("nothing", nothing),
        ("many", many),
        ("none", Run::new(1)),
        ("hostile", hostile()),
    ] {
        let xml = junit::render(&run.report());
        if let Err(error) = check(&xml) {
            panic!("{name}: {error}\n{xml}");
        }
    }
}

#[test]
fn a_testcase_says_what_a_reader_of_junit_wants_to_know() {
    let xml = junit::render(&mixed().report());
    let case = |id: &str| {
        let from = xml.find(&format!("<testcase name=\"{id}\"")).unwrap();
        &xml[from..from + xml[from..].find("</testcase>").unwrap()]
    };
    let fail = case("b-fail[ipv4]");
    for part in [
        "<property name=\"requirement\" value=\"SVC-1\"/>",
        "<failure message=\"pod client was refused by clusterIP 10.96.0.10:80\" type=\"refused\">",
        "evidence of attempt 1: cases/b-fail[ipv4]/1\nevidence of attempt 2: cases/b-fail[ipv4]/2",
        "<system-out>",
    ] {
        assert!(fail.contains(part), "{part:?} is not in {fail}");
    }
    assert_eq!(fail.matches("<rerunFailure ").count(), 2);
    let flaky = case("c-flaky[ipv4]");
    assert_eq!(
        (
            flaky.matches("<flakyFailure ").count(),
            flaky.matches("<failure ").count()
        ),
        (2, 1)
    );
    assert_eq!(case("d-infra[ipv4]").matches("<rerunError ").count(), 2);
}

#[test]
fn the_check_finds_what_is_wrong() {
    let xml = junit::render(&mixed().report());
    assert_eq!(check(&xml), Ok(()));
    for (from, to, what) in [
        ("tests=\"", "tests=\"1", "says"),
        ("<failure ", "<failed ", "unknown element failed"),
        (" value=\"SVC-1\"", "", "property has no value"),
        (
            "<property name=\"title\"",
            "<property colour=\"red\" name=\"title\"",
            "attribute colour",
        ),
        (
            "<system-out>",
            "<properties/><system-out>",
            "properties after",
        ),
        ("<testsuite ", "loose text<testsuite ", "text in testsuites"),
        (" time=\"", " time=\"long ", "time"),
    ] {
        let changed = xml.replacen(from, to, 1);
        assert_ne!(changed, xml, "{from} is not in {xml}");
        let error = check(&changed).expect_err(from);
        assert!(error.contains(what), "{from}: {error}");
    }
}
