//! Makes text from candidates and scenarios harmless: nothing it contains may change what a terminal, an XML parser or a
//! Markdown renderer does, and nothing it contains may vanish unseen either.

/// Writes characters that act instead of being seen as `\u{..}`: control characters (terminal escapes among them),
/// directional overrides and other invisible format characters, and the two code points that XML forbids. Newline and tab
/// stay.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// As [`visible`], in one line: newlines and tabs become spaces.
pub fn one_line(text: &str) -> String {
    visible(text).replace(['\n', '\t'], " ")
}

fn acts(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Zero-width and directional marks, line separators, embeddings and isolates, word joiners, byte-order mark,
        // interlinear marks, tags.
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{61c}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{fffe}'..='\u{ffff}'
        | '\u{e0000}'..='\u{e007f}' => true,
        _ => c.is_control(),
    }
}

/// At most so many characters, with an ellipsis for the rest.
pub fn shortened(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_becomes_visible() {
        assert_eq!(
            visible("a\u{1b}[31mred\u{7}\r"),
            "a\\u{1b}[31mred\\u{7}\\u{d}"
        );
        assert_eq!(
            visible("\u{202e}gnp.exe\u{ffff}"),
            "\\u{202e}gnp.exe\\u{ffff}"
        );
        assert_eq!(visible("two\n\tlines é 猫"), "two\n\tlines é 猫");
        assert_eq!(one_line("two\n\tlines"), "two  lines");
    }

    #[test]
    fn shortening_counts_characters() {
        assert_eq!(shortened("猫猫猫", 3), "猫猫猫");
        assert_eq!(shortened("猫猫猫猫", 3), "猫猫猫…");
    }
}
