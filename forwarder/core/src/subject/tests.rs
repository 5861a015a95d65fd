use proptest::prelude::*;

use super::*;

fn template(template: &str) -> Template {
    Template::parse(template).unwrap()
}

fn render(text: &str, key: &str, id: &str) -> Result<String, Invalid> {
    let mut out = b"rubbish".to_vec();
    template(text).render(key.as_bytes(), id.as_bytes(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn accepts(key: &str, id: &str) -> bool {
    render("{key}.{id}", key, id).is_ok()
}

#[test]
fn placeholders_are_filled() {
    for (text, expected, prefix) in [
        ("{key}.{id}", "K.I", ""),
        ("assets.{key}.{id}", "assets.K.I", "assets"),
        ("eu.plant-7.{key}.{id}.raw", "eu.plant-7.K.I.raw", "eu.plant-7"),
        ("a.b-{key}-{id}", "a.b-K-I", "a"),
        ("a-{key}.{id}", "a-K.I", ""),
        ("{id}.{key}.{id}", "I.K.I", ""),
        ("übergabe.{key}{id}", "übergabe.KI", "übergabe"),
    ] {
        assert_eq!(render(text, "K", "I").unwrap(), expected);
        assert_eq!(template(text).literal_prefix(), prefix);
    }
    assert_eq!(render("{key}.{id}", "{id}", "{key}").unwrap(), "{id}.{key}");
    assert_eq!(render("{key}.{id}", "a.b", "c.d").unwrap(), "a.b.c.d");
}

#[test]
fn records_are_kept_off_a_subject_and_all_below_it() {
    let mut template = template("{key}.{id}");
    let mut out = Vec::new();
    template.keep_off("_FANOUT.plant.assets");
    for (key, id, passes) in [
        ("_FANOUT.plant", "assets", false),
        ("_FANOUT", "plant.assets.get", false),
        ("_FANOUT.plant.assets.x", "y", false),
        ("_FANOUT.plant", "assets2", true),
        ("_FANOUT", "plant", true),
        ("a._FANOUT.plant", "assets", true),
    ] {
        let rendered = template.render(key.as_bytes(), id.as_bytes(), &mut out);
        assert_eq!(
            rendered,
            if passes { Ok(()) } else { Err(Invalid::BadSubject) },
            "{key} {id}"
        );
    }
    // Another one leaves the first one where it is, and there is a bound.
    template.keep_off("other");
    assert_eq!(
        template.render(b"_FANOUT.plant", b"assets", &mut out),
        Err(Invalid::BadSubject)
    );
    (0..40).for_each(|number| template.keep_off(&format!("n{number}")));
    assert_eq!(template.render(b"n39", b"x", &mut out), Err(Invalid::BadSubject));
    assert_eq!(template.off.len(), MAX_KEPT_OFF);
}

#[test]
fn a_pattern_takes_what_nats_gives_it() {
    for (pattern, subject, taken) in [
        (">", "a", true),
        ("a.>", "a", false),
        ("a.>", "a.b.c", true),
        ("a.*", "a.b", true),
        ("a.*", "a.b.c", false),
        ("a.b", "a.b", true),
        ("a.b", "a", false),
        ("*.b", "a.c", false),
    ] {
        assert_eq!(takes(pattern, subject), taken, "{pattern} {subject}");
    }
}

#[test]
fn what_is_no_template_says_why() {
    let error = |text: &str| Template::parse(text).unwrap_err();
    for text in ["{key}", "a.{key}", "", "a.b"] {
        let missing = if text.contains("{key}") { "{id}" } else { "{key}" };
        assert_eq!(
            error(text),
            TemplateError::Missing {
                template: text.to_owned(),
                missing
            }
        );
    }
    for text in [
        "{key}.{id}.{tag}",
        "{key}.{id",
        "{key}.{id}}",
        "{{key}}.{id}",
        "{Key}.{id}",
        "{key}.{ id }",
        "}{key}.{id}",
    ] {
        assert_eq!(error(text), TemplateError::Brace(text.to_owned()), "{text}");
    }
    for text in [
        ".{key}.{id}",
        "{key}.{id}.",
        "{key}..{id}",
        "a..{key}.{id}",
        "*.{key}.{id}",
        "{key}.>.{id}",
        "{key} {id}",
        "a\t.{key}.{id}",
        "a\r\nPUB x 0.{key}.{id}",
        "{key}.{id}\u{7f}",
        "{key}.\u{85}{id}",
    ] {
        assert_eq!(error(text), TemplateError::Literal(text.to_owned()), "{text}");
    }
    for text in [
        "$JS.API.{key}.{id}",
        "$.{key}.{id}",
        "${key}.{id}",
        "_INBOX.{key}.{id}",
        "_GR_.{key}.{id}",
    ] {
        assert_eq!(error(text), TemplateError::Reserved(text.to_owned()), "{text}");
    }
    assert_eq!(
        error(&format!("{}.{{key}}.{{id}}", "a".repeat(4000))),
        TemplateError::TooLong
    );
}

#[test]
fn no_record_leaves_its_subject() {
    for bad in [
        "",
        "*",
        ">",
        "a*",
        "a.>",
        "a.*.b",
        " ",
        "a b",
        "\t",
        "a\r\nPUB x 1",
        "\0",
        "\u{1f}",
        "\u{7f}",
        "\u{80}",
        "\u{9f}",
        "é\u{85}",
        ".",
        "..",
        ".a",
        "a.",
        "a..b",
    ] {
        assert!(!accepts(bad, "I"), "key {bad:?}");
        assert!(!accepts("K", bad), "ID {bad:?}");
        // Also where the template's text stands between the dot and the end.
        assert_eq!(render("a-{key}-{id}-b", bad, "I"), Err(Invalid::BadSubject), "{bad:?}");
    }
    for good in [
        "a",
        "a.b.c",
        "é",
        "\u{a0}",
        "Ã\u{a1}",
        "机器-7",
        "😀",
        "a\u{3000}b",
        "$",
        "_INBOX",
        "-",
        "\"",
        "\\",
        "#",
        "!",
        "~",
    ] {
        assert!(accepts("K", good), "ID {good:?}");
        assert!(good == "$" || good == "_INBOX" || accepts(good, "I"), "key {good:?}");
    }
}

#[test]
fn first_tokens_of_nats_itself_are_refused() {
    for key in ["$JS.API.STREAM", "$", "$SYS", "_INBOX", "_INBOX.x", "_GR_", "_GR_.x"] {
        assert!(!accepts(key, "DELETE.x"), "{key}");
        assert_eq!(
            render("a.{key}.{id}", key, "DELETE.x").unwrap(),
            format!("a.{key}.DELETE.x")
        );
    }
    for key in ["a$", "_INBOXES", "_inbox", "INBOX", "_INBOX-1", "_GR", "_GR_1", "GR"] {
        assert!(accepts(key, "x"), "{key}");
    }
    // The token that counts is the one that comes out.
    assert_eq!(render("_{key}.{id}", "INBOX", "x"), Err(Invalid::BadSubject));
    assert_eq!(render("{id}.{key}", "x", "$JS"), Err(Invalid::BadSubject));
}

#[test]
fn the_longest_subject_fits_the_control_line() {
    let id = "i".repeat(MAX_SUBJECT_BYTES - 2);
    assert!(accepts("k", &id));
    assert!(!accepts("kk", &id));
    assert!(!accepts("k", &"i".repeat(10_000_000)));
    let reply = "_INBOX.".len() + 22 + 1 + 22;
    let line = MAX_SUBJECT_BYTES + 1 + reply + 1 + "67108864".len() + 1 + "67108864".len();
    assert!(line <= 4096, "{line}");
}

#[test]
fn a_pattern_covers_a_prefix_or_not() {
    for (pattern, prefix) in [
        (">", "a"),
        ("a.>", "a"),
        ("a.>", "a.b"),
        ("a.b.>", "a.b"),
        ("*.>", "a"),
        ("*.>", "a.b"),
        ("a.*.>", "a.b"),
        ("*.b.>", "a.b.c"),
    ] {
        assert!(covers(pattern, prefix), "{pattern} must cover {prefix}.>");
    }
    for (pattern, prefix) in [
        ("a", "a"),
        ("a.*", "a"),
        ("a.*.*", "a"),
        ("a.b.*.*", "a.b"),
        ("a.b.>", "a"),
        ("a.*.>", "a"),
        ("*.*.>", "a"),
        ("b.>", "a"),
        ("ab.>", "a"),
        ("A.>", "a"),
        ("", "a"),
        ("a.b", "a.b"),
    ] {
        assert!(!covers(pattern, prefix), "{pattern} must not cover {prefix}.>");
    }
}

proptest! {
    #[test]
    fn what_is_rendered_is_one_literal_subject(key in any::<String>(), id in any::<String>(), prefixed: bool) {
        judge(&key, &id, prefixed)?;
    }

    #[test]
    fn the_same_near_the_rules(key in r"[a.*> $_\t\x7f\x85é]{0,6}", id in r"(_INBOX)?[a.*> $\n\xa0]{0,6}", prefixed: bool) {
        judge(&key, &id, prefixed)?;
    }
}

fn judge(key: &str, id: &str, prefixed: bool) -> Result<(), TestCaseError> {
    let text = if prefixed { "p.{key}.{id}" } else { "{key}.{id}" };
    let plain = |text: &str| {
        text.split('.').all(|token| !token.is_empty())
            && !text.contains(|c: char| c.is_control() || matches!(c, ' ' | '*' | '>'))
    };
    let first = key.split('.').next().unwrap();
    let good = plain(key) && plain(id) && (prefixed || !(first.starts_with('$') || first == "_INBOX"));
    match render(text, key, id) {
        Ok(subject) => {
            prop_assert!(good, "{}", subject);
            prop_assert_eq!(
                subject,
                text.replace("{key}", "\0").replace("{id}", id).replace('\0', key)
            );
        }
        Err(invalid) => {
            prop_assert!(!good);
            prop_assert_eq!(invalid, Invalid::BadSubject);
        }
    }
    Ok(())
}
