//! The page in a real browser: it renders, its filters and links work, and nothing complains.

mod fixture;

use fixture::browser::{Seen, browser, look};
use fixture::{Run, evidence, hostile};
use reports::event::Verdict;
use reports::evidence::{Evidence, collect};
use reports::{Report, html};

/// What is seen of a report.
trait Entries {
    /// Opening tags of the entries, those that are shown.
    fn shown(&self) -> Vec<String>;

    fn count(&self) -> &str;
}

impl Entries for Seen {
    fn shown(&self) -> Vec<String> {
        let entries = self.document.split("<details class=\"case").skip(1);
        let tags = entries.map(|rest| rest[..rest.find('>').unwrap()].to_owned());
        tags.filter(|tag| !tag.contains("hidden")).collect()
    }

    fn count(&self) -> &str {
        let from = self.document.find("id=\"count\"").unwrap();
        let text = &self.document[from..];
        let from = text.find('>').unwrap() + 1;
        &text[from..text.find("</p>").unwrap()]
    }
}

fn several() -> Report {
    let mut run = Run::new(3);
    run.case("reach[ipv4]", &["SVC-1", "SVC-2"], &[Verdict::Fail; 3]);
    run.case("reach[ipv6]", &["SVC-1"], &[Verdict::Pass; 3]);
    run.case(
        "often+odd & ends[ipv4]",
        &["SVC-2"],
        &[Verdict::Pass, Verdict::Fail, Verdict::Pass],
    );
    run.case("node-port[ipv4]", &["NP-1"], &[Verdict::Pass; 3]);
    run.report()
}

#[test]
fn what_a_browser_says_is_heard() {
    let Some(browser) = browser() else { return };
    let page = "<!DOCTYPE html><title>x</title><p id=a>a</p><script>document.getElementById('a').textContent='b';nothing()</script>";
    let seen = look(&browser, page, "");
    assert!(seen.document.contains(">b</p>"), "{}", seen.document);
    assert_eq!(seen.console.len(), 1, "{:?}", seen.console);
    assert!(seen.console[0].contains("nothing is not defined"));
}

#[test]
fn a_page_renders_without_complaints() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    let report = evidence::failing_run(dir.path()).report();
    let page = html::render(&report, &collect(dir.path(), &report));
    let seen = look(&browser, &page, "");
    assert_eq!(seen.console, Vec::<String>::new());
    assert!(
        seen.document.contains("data-ready=\"yes\""),
        "the script did not end"
    );
    assert_eq!(seen.shown().len(), 2);
    assert_eq!(seen.count(), "2 cases");
    // Buttons are there for those who can use them.
    assert!(
        seen.document
            .contains("<button type=\"button\" class=\"copy\">")
    );
}

#[test]
fn filters_and_links_find_cases() {
    let Some(browser) = browser() else { return };
    let page = html::render(&several(), &Evidence::new());
    let is = |tags: &[String], ids: &[&str]| {
        let found = tags.len() == ids.len();
        found
            && ids.iter().all(|id| {
                tags.iter()
                    .any(|tag| tag.contains(&format!("data-case=\"{id}\"")))
            })
    };
    for (fragment, ids) in [
        (
            "#verdict=fail,flaky",
            &["reach[ipv4]", "often+odd &amp; ends[ipv4]"][..],
        ),
        ("#area=node-port", &["node-port[ipv4]"]),
        ("#text=REACH%20svc-2", &["reach[ipv4]"]),
        ("#verdict=pass&text=reach", &["reach[ipv6]"]),
    ] {
        let seen = look(&browser, &page, fragment);
        assert_eq!(seen.console, Vec::<String>::new(), "{fragment}");
        assert!(
            is(&seen.shown(), ids),
            "{fragment} shows {:?}",
            seen.shown()
        );
        let count = format!("{} of 4 cases", ids.len());
        assert_eq!(seen.count(), count, "{fragment}");
    }
    let none = look(&browser, &page, "#text=no-such-case");
    assert_eq!((none.shown().len(), none.count()), (0, "0 of 4 cases"));
    assert!(none.document.contains("<p id=\"nothing\">"));
}

#[test]
fn a_link_opens_its_case() {
    let Some(browser) = browser() else { return };
    let page = html::render(&several(), &Evidence::new());
    let open = |seen: &Seen, id: &str| {
        let tags = seen.shown();
        let tag = tags
            .iter()
            .find(|tag| tag.contains(&format!("data-case=\"{id}\"")));
        tag.unwrap().contains(" open")
    };
    let plain = look(&browser, &page, "");
    assert!(!open(&plain, "node-port[ipv4]"));
    let seen = look(&browser, &page, "#case=node-port%5Bipv4%5D");
    assert!(open(&seen, "node-port[ipv4]"));
    assert_eq!(seen.shown().len(), 4, "nothing is filtered away");
    // The page's own link to a case with a difficult name.
    let from = page.find("href=\"#case=often").unwrap() + 6;
    let link = &page[from..from + page[from..].find('"').unwrap()];
    let seen = look(&browser, &page, &link.replace("&#38;", "&"));
    assert!(open(&seen, "often+odd &amp; ends[ipv4]"), "{link}");
    let seen = look(&browser, &page, "#case=gone");
    assert!(seen.count().contains("no case gone"), "{}", seen.count());
}

#[test]
fn hostile_texts_do_nothing_in_a_browser() {
    let Some(browser) = browser() else { return };
    let report = hostile().report();
    let page = html::render(&report, &Evidence::new());
    let seen = look(&browser, &page, "#text=evil");
    assert_eq!(seen.console, Vec::<String>::new());
    assert_eq!(seen.document.matches("<script").count(), 1);
    assert_eq!(seen.shown().len(), 4);
    assert!(!seen.document.contains("<img"), "a picture would be loaded");
    // A script that somebody adds is not run: the policy names the page's own.
    let added = page.replacen("<main", "<script>document.title='owned'</script><main", 1);
    let seen = look(&browser, &added, "");
    assert!(!seen.document.contains("<title>owned"));
    assert!(
        seen.console
            .iter()
            .any(|line| line.contains("Content Security Policy"))
    );
}

#[test]
fn ten_thousand_attempts_stay_usable() {
    let Some(browser) = browser() else { return };
    let mut run = Run::new(20);
    for case in 0..500 {
        run.case(
            &format!("case-{case}[ipv4]"),
            &["SVC-1"],
            &[Verdict::Pass; 20],
        );
    }
    let page = html::render(&run.report(), &Evidence::new());
    // The time that filtering takes is measured in the page itself: every case is looked at twice.
    let probe = "<script>const t=performance.now();const i=document.getElementById('text');for(const w of ['case-499','']){i.value=w;i.dispatchEvent(new Event('input',{bubbles:true}))};document.title=String(performance.now()-t)</script></body>";
    // Without its policy, which would not run the probe.
    let policy_from = page.find("<meta http-equiv").unwrap();
    let policy_to = policy_from + page[policy_from..].find('>').unwrap() + 1;
    let page = format!("{}{}", &page[..policy_from], &page[policy_to..]);
    let page = page.replace("</body>", probe);
    let seen = look(&browser, &page, "");
    let title = seen.document.split("<title>").nth(1).unwrap();
    let took: f64 = title[..title.find('<').unwrap()].parse().unwrap();
    // Two times everything; a tenth of a second each is what a person calls at once. Ten times that on a busy machine.
    assert!(took < 2_000.0, "filtering twice took {took} ms");
    assert_eq!(seen.shown().len(), 500);
}
