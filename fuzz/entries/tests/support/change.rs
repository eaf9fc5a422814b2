//! Changes that make a valid input a hostile one: of its values, where the structure is known, and of its bytes.

use proptest::prelude::*;
use serde_json::{Value, json};

/// A change, as numbers, so that proptest can make it smaller.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    kind: u8,
    at: u32,
    with: u32,
}

/// A few changes.
pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = (any::<u8>(), any::<u32>(), any::<u32>()).prop_map(|(kind, at, with)| Change {
        kind,
        at,
        with,
    });
    prop::collection::vec(change, 1..6)
}

/// Values that a reader may not expect in the place of another one.
fn odd(with: u32) -> Value {
    let long = |c: &str, n: usize| Value::String(c.repeat(n));
    let all = [
        json!(0),
        json!(1),
        json!(-1),
        json!(u32::MAX),
        json!(u32::MAX as u64 + 1),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(u64::MAX - 1),
        json!(1e308),
        json!(-1e308),
        json!(5e-324),
        json!(-0.0),
        json!(0.1),
        json!(9_007_199_254_740_993_u64),
        json!(null),
        json!(true),
        json!(""),
        json!(" "),
        json!("\u{0}"),
        json!("\u{1b}[2J\u{7}"),
        json!("\u{202e}\u{feff}\u{2028}"),
        json!("]]></testcase><script>alert(1)</script>"),
        json!("`|<!-- -->\n\n# @kubernetes #1 https://evil.example"),
        json!("../../../../etc/passwd"),
        json!("$(family)$(pod.web.ip)$("),
        json!("--- \n- *a\n&a"),
        json!("-9999-12-31T23:59:59Z"),
        json!("9999-12-31T23:59:59.999999999Z"),
        json!("1970-01-01T00:00:00Z"),
        json!("18446744073709551615ms"),
        json!("5000000h"),
        json!("rate<0.000001% @99.999999%"),
        json!("1/4294967295"),
        json!("0.0.0.0"),
        json!("::/0"),
        json!("255.255.255.255/33"),
        json!("NaN"),
        json!([]),
        json!({}),
        json!([[[[[[[[[[]]]]]]]]]]),
        long("x", 70_000),
        long("\u{1F980}", 300),
        long("\u{1b}", 20_000),
        long("$(", 3000),
        nested(100),
        nested(200),
    ];
    all[with as usize % all.len()].clone()
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Null, |inner, at| match at % 2 {
        0 => Value::Array(vec![inner]),
        _ => json!({ "a": inner }),
    })
}

/// Changes values of documents (the lines of a log, or one document). The first is chosen as often as all others together: of a log it holds the plan.
pub fn values(documents: &mut Vec<Value>, change: Change) {
    let Change { kind, at, with } = change;
    if documents.is_empty() {
        return;
    }
    let chosen = match at % 2 {
        0 => 0,
        _ => (at / 2) as usize % documents.len(),
    };
    let other = (with / 7) as usize % documents.len();
    match kind % 12 {
        // Whole documents: dropped, told twice, told again later, in another order.
        0 => {
            documents.remove(chosen);
        }
        1 => {
            let copy = documents[chosen].clone();
            documents.insert(other, copy);
        }
        2 => {
            let copy = documents[chosen].clone();
            documents.extend(std::iter::repeat_n(copy, with as usize % 20));
        }
        3 => documents.swap(chosen, other),
        4 => documents.truncate(chosen + 1),
        // Parts of one document.
        kind => {
            let from = documents[other].clone();
            let all = places(&documents[chosen]);
            let place = &all[(at / 3) as usize % all.len()];
            let Some(value) = documents[chosen].pointer_mut(place) else {
                return;
            };
            match (kind, value) {
                (5, Value::Object(map)) if !map.is_empty() => {
                    let key = map.keys().nth(with as usize % map.len()).cloned();
                    map.remove(&key.unwrap_or_default());
                }
                (5, Value::Array(list)) if !list.is_empty() => {
                    list.remove(with as usize % list.len());
                }
                (6, Value::Object(map)) => {
                    map.insert("unknownField".into(), odd(with));
                }
                (6, Value::Array(list)) => list.push(odd(with)),
                (7, Value::Array(list)) if !list.is_empty() => {
                    let copy = list[with as usize % list.len()].clone();
                    list.extend(std::iter::repeat_n(copy, 1 + with as usize % 50));
                }
                // A value from elsewhere: of the right type and in the wrong place.
                (8 | 9, value) => {
                    let all = places(&from);
                    if let Some(found) = from.pointer(&all[with as usize % all.len()]) {
                        *value = found.clone();
                    }
                }
                (_, value) => *value = odd(with),
            }
        }
    }
}

/// JSON pointers of all values in a value, itself included.
fn places(value: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut at = 0;
    // Enough to reach everything that a reader treats in its own way.
    while at < found.len() && found.len() < 5000 {
        let here = found[at].clone();
        match value.pointer(&here) {
            Some(Value::Object(map)) => found.extend(map.keys().map(|key| {
                let key = key.replace('~', "~0").replace('/', "~1");
                format!("{here}/{key}")
            })),
            Some(Value::Array(list)) => {
                found.extend((0..list.len()).map(|n| format!("{here}/{n}")))
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Changes bytes.
pub fn bytes(bytes: &mut Vec<u8>, change: Change) {
    const WORDS: &[&[u8]] = &[
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"---\n",
        b"...\n",
        b": ",
        b"- ",
        b"{",
        b"[",
        b"\"",
        b"'",
        b"&a ",
        b"*a ",
        b"<<: ",
        b"!!binary ",
        b"? ",
        b"|",
        b">-\n",
        b"#",
        b"%YAML 9.9\n",
        b"$(",
        b"1e999",
        b"99999999999999999999",
        b".nan",
        b"-.inf",
        b"0x7fffffffffffffff",
        b"~",
        b"\t",
        b"\\u0000",
        b"\\ud800",
        b"not ",
        b"((((",
        b"))",
        b" and ",
        b" or ",
    ];
    let Change { kind, at, with } = change;
    let len = bytes.len();
    let place = if len == 0 { 0 } else { at as usize % len };
    match kind % 7 {
        0 if len > 0 => bytes[place] ^= 1 << (with % 8),
        1 if len > 0 => bytes[place] = with as u8,
        2 => bytes.truncate(place),
        3 => {
            let end = (place + with as usize % 200).min(len);
            bytes.drain(place..end);
        }
        4 => {
            let end = (place + 1 + with as usize % 100).min(len);
            let part = bytes[place..end].repeat(1 + with as usize % 300);
            bytes.splice(place..place, part);
        }
        5 => {
            let end = (place + with as usize % 2000).min(len);
            let part = bytes[place..end].to_vec();
            let to = with as usize % (len + 1);
            bytes.splice(to..to, part);
        }
        _ => {
            let word = WORDS[with as usize % WORDS.len()];
            let times = if with % 11 == 0 { 2000 } else { 1 };
            bytes.splice(place..place, word.repeat(times));
        }
    }
}
