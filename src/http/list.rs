//! Lists in header fields: their members, parameters and quoted strings (RFC 9110 section 5.6).

use std::borrow::Cow;

/// White space within a field (section 5.6.3); `trim` would know more.
pub const BLANK: [char; 2] = [' ', '\t'];

/// The members of a list, without white space around. A separator in a quoted string separates
/// nothing; a string that is left open takes all that follows.
pub fn split(list: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let members = list.split(move |letter| {
        let is_end = letter == separator && !is_quoted;
        is_quoted ^= letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && is_quoted && !is_escaped;
        is_end
    });
    members.map(|member| member.trim_matches(BLANK))
}

/// A parameter's value: a quoted string without its quotes and backslashes (section 5.6.4), or what
/// needs none. `None` for what is neither.
///
/// A token may be all that needs none, but addresses are taken as well (`for=192.0.2.1:80`), since
/// some proxies write them so.
pub fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(rest) = value.strip_prefix('"') else {
        return (!value.contains(['"', ' ', '\t'])).then_some(value.into());
    };
    let (mut text, mut letters) = (String::new(), rest.chars());
    loop {
        match letters.next()? {
            // Nothing may follow the string.
            '"' => return letters.next().is_none().then_some(text.into()),
            '\\' => text.push(letters.next()?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_quoted_strings_separate_nothing() {
        for (list, members) in [
            ("", &[""][..]),
            ("a, b\t,,c", &["a", "b", "", "c"]),
            (r#"a="1,2", b"#, &[r#"a="1,2""#, "b"]),
            (r#"a="\",\\", b"#, &[r#"a="\",\\""#, "b"]),
            // A backslash outside of a quoted string is only that.
            (r#"a=\",b",c"#, &[r#"a=\",b""#, "c"]),
            (r#"a=", b"#, &[r#"a=", b"#]),
        ] {
            assert_eq!(split(list, ',').collect::<Vec<_>>(), members, "{list}");
        }
    }

    #[test]
    fn quoted_strings_are_taken_whole_or_not_at_all() {
        for (value, text) in [
            ("", Some("")),
            ("token", Some("token")),
            ("[::1]:80", Some("[::1]:80")),
            (r#""a, \"b\" \\c""#, Some(r#"a, "b" \c"#)),
            (r#""""#, Some("")),
            ("two words", None),
            (r#"a"b""#, None),
            (r#""open"#, None),
            (r#""open\"#, None),
            (r#""a"b"#, None),
        ] {
            assert_eq!(unquoted(value).as_deref(), text, "{value}");
        }
    }
}
