//! Reads Rust as far as the graph of imports needs it: words, items, and trees of `use`.

pub(super) fn is_for_tests(attribute: &str) -> bool {
    attribute.starts_with("#[cfg(test") || attribute.starts_with("#[cfg(all(test")
}

pub(super) fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$')
}

/// Returns the place behind the bracket that closes the bracket at `at`.
pub(super) fn closing(words: &[String], at: usize) -> usize {
    let mut depth = 0;
    for (index, word) in words.iter().enumerate().skip(at) {
        match word.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    words.len()
}

/// Returns the place behind the item that begins at `at`.
pub(super) fn end_of_item(words: &[String], at: usize) -> usize {
    let is_use = words[at] == "use";
    let mut index = at;
    while index < words.len() {
        match words[index].as_str() {
            // A comma ends a field or a variant.
            ";" | "," => return index + 1,
            "{" if !is_use => return closing(words, index),
            "(" | "[" | "{" => index = closing(words, index),
            "}" => return index,
            _ => index += 1,
        }
    }
    index
}

/// Reads a tree of `use`, and its semicolon: paths, and the name that each has here.
pub(super) fn tree(
    words: &[String],
    at: &mut usize,
    before: &mut Vec<String>,
    into: &mut Vec<(Vec<String>, String)>,
) {
    let length = before.len();
    loop {
        let word = words[*at].clone();
        *at += 1;
        match word.as_str() {
            "::" => {}
            "{" => {
                while words[*at] != "}" {
                    tree(words, at, before, into);
                }
                *at += 1;
            }
            "*" => into.push((before.clone(), "*".to_owned())),
            "," | ";" => break,
            "as" => {
                into.last_mut().unwrap().1.clone_from(&words[*at]);
                *at += 1;
            }
            name => {
                before.push(name.to_owned());
                if words[*at] != "::" {
                    let mut path = before.clone();
                    if name == "self" && path.len() > 1 {
                        path.pop();
                    }
                    let name = path.last().unwrap().clone();
                    into.push((path, name));
                }
            }
        }
        // This was the last name of a list, without a comma.
        if words[*at] == "}" {
            break;
        }
    }
    before.truncate(length);
}

/// Returns the words of a text without comments. A string without blanks is one word, a string with blanks an empty one.
pub(super) fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, what: &str| {
        what.chars()
            .enumerate()
            .all(|(index, c)| chars.get(at + index) == Some(&c))
    };
    let mut words = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            while !starts(at, "*/") {
                at += 1;
            }
            at += 2;
        } else if c.is_whitespace() {
            at += 1;
        } else if let Some(hashes) = raw_string(&chars[at..]) {
            let end = format!("\"{}", "#".repeat(hashes));
            at += chars[at..].iter().position(|&c| c == '"').unwrap() + 1;
            while !starts(at, &end) {
                at += 1;
            }
            at += end.len();
            words.push("\"\"".to_owned());
        } else if c == '"' {
            let from = at;
            at += 1;
            while chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
            let string: String = chars[from..at].iter().collect();
            let is_plain = !string.contains(char::is_whitespace);
            words.push(if is_plain { string } else { "\"\"".to_owned() });
        } else if c == '\'' {
            let is_char = chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'');
            at += 1;
            if is_char {
                while chars[at] != '\'' {
                    at += if chars[at] == '\\' { 2 } else { 1 };
                }
                at += 1;
            }
        } else if is_name(&c.to_string()) || c.is_ascii_digit() {
            let from = at;
            while at < chars.len() && (chars[at].is_alphanumeric() || "_$".contains(chars[at])) {
                at += 1;
            }
            words.push(chars[from..at].iter().collect());
        } else if starts(at, "::") {
            words.push("::".to_owned());
            at += 2;
        } else {
            words.push(c.to_string());
            at += 1;
        }
    }
    words
}

/// Returns the number of hashes of the raw string that begins here, if there is one.
fn raw_string(chars: &[char]) -> Option<usize> {
    let (['b' | 'c', 'r', rest @ ..] | ['r', rest @ ..]) = chars else {
        return None;
    };
    let hashes = rest.iter().take_while(|&&c| c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}
