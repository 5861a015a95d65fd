mod generate;
mod model;

use proptest::prelude::*;
use serde::de::IgnoredAny;

use self::model::{expected, parse};
use super::*;

const NOW: &str = "2026-01-27T15:37:03.886Z";
const THEN: &str = "2026-01-27T15:37:03.882Z";
const STAMPS: Stamps<'_> = Stamps {
    forwarder: NOW,
    kafka: Some((THEN, "producer")),
};
const NO_KAFKA: Stamps<'_> = Stamps {
    forwarder: NOW,
    kafka: None,
};

/// ID and body.
fn edited_with(stamps: &Stamps<'_>, value: &[u8]) -> Result<(String, String), Invalid> {
    // What the buffers held before must not matter.
    let (mut body, mut id) = (b"rubbish".to_vec(), b"rubbish".to_vec());
    edit(value, stamps, &mut body, &mut id)?;
    Ok((String::from_utf8(id).unwrap(), String::from_utf8(body).unwrap()))
}

fn edited(value: &str) -> (String, String) {
    edited_with(&STAMPS, value.as_bytes()).unwrap_or_else(|invalid| panic!("{invalid:?}: {value}"))
}

fn id(value: &str) -> String {
    edited(value).0
}

fn body(value: &str) -> String {
    edited(value).1
}

fn invalid(value: impl AsRef<[u8]>) -> Invalid {
    let value = value.as_ref();
    match edited_with(&STAMPS, value) {
        Ok(edited) => panic!("{edited:?} of {:?}", String::from_utf8_lossy(value)),
        Err(invalid) => invalid,
    }
}

/// The stamps as members.
fn stamped() -> String {
    format!(r#""asset_forwarder_timestamp":"{NOW}","kafka_timestamp":"{THEN}","kafka_timestamp_type":"producer""#)
}

#[test]
fn the_id_goes_and_the_stamps_come() {
    let stamped = stamped();
    assert_eq!(
        edited(r#"{"ID":"temp","VALUE":24.30,"attributes":{"unit":"C"}}"#),
        (
            "temp".to_owned(),
            format!(r#"{{"VALUE":24.30,"attributes":{{"unit":"C",{stamped}}}}}"#)
        )
    );
    assert_eq!(body(r#"{"id":"x"}"#), format!(r#"{{"attributes":{{{stamped}}}}}"#));
    assert_eq!(
        body(r#"{"id":"x","a":1}"#),
        format!(r#"{{"a":1,"attributes":{{{stamped}}}}}"#)
    );
    assert_eq!(
        body(r#"{"a":1,"id":"x"}"#),
        format!(r#"{{"a":1,"attributes":{{{stamped}}}}}"#)
    );
    assert_eq!(
        body(r#"{"attributes":{},"id":"x"}"#),
        format!(r#"{{"attributes":{{{stamped}}}}}"#)
    );
    assert_eq!(
        body(r#"{"id":"x","attributes":{},"b":[]}"#),
        format!(r#"{{"attributes":{{{stamped}}},"b":[]}}"#)
    );
}

#[test]
fn white_space_is_fine_anywhere() {
    let value = " \r\n{ \"id\" : \"x\" ,\t\"a\" : [ 1 , { } , [ ] ] , \"attributes\" : { \"unit\" : \"C\" } } \n";
    let expected = format!(r#"{{"a":[1,{{}},[]],"attributes":{{"unit":"C",{}}}}}"#, stamped());
    assert_eq!(parse(&body(value)), parse(&expected));
    assert_eq!(
        parse(&body("{ \"id\" : 1 , \"attributes\" : { } }")),
        parse(&format!(r#"{{"attributes":{{{}}}}}"#, stamped()))
    );
}

#[test]
fn stamps_replace_those_already_there_in_place() {
    let value = r#"{"id":"x","attributes":{"kafka_timestamp_type":{"x":[1]},"a":1,"asset_forwarder_timestamp":"old","b":2,"kafka_timestamp":null}}"#;
    let expected = format!(
        r#"{{"attributes":{{"kafka_timestamp_type":"producer","a":1,"asset_forwarder_timestamp":"{NOW}","b":2,"kafka_timestamp":"{THEN}"}}}}"#
    );
    assert_eq!(body(value), expected);
    // By its unescaped name, its spelling stays; every one of a name.
    let value = r#"{"id":"x","attributes":{"kafka_timest\u0061mp":1,"kafka_timestamp":2}}"#;
    let expected = format!(
        r#"{{"attributes":{{"kafka_timest\u0061mp":"{THEN}","kafka_timestamp":"{THEN}","asset_forwarder_timestamp":"{NOW}","kafka_timestamp_type":"producer"}}}}"#
    );
    assert_eq!(body(value), expected);
    // Elsewhere they are like any other.
    let value = r#"{"kafka_timestamp":1,"x":{"attributes":{"kafka_timestamp":2}},"id":"x"}"#;
    let expected = format!(
        r#"{{"kafka_timestamp":1,"x":{{"attributes":{{"kafka_timestamp":2}}}},"attributes":{{{}}}}}"#,
        stamped()
    );
    assert_eq!(body(value), expected);
}

#[test]
fn without_a_kafka_timestamp_its_fields_are_left_out() {
    for (attributes, expected) in [
        (r#""#, format!(r#""asset_forwarder_timestamp":"{NOW}""#)),
        (
            r#""kafka_timestamp":1"#,
            format!(r#""asset_forwarder_timestamp":"{NOW}""#),
        ),
        (
            r#""kafka_timestamp":1,"kafka_timestamp_type":"x","a":1"#,
            format!(r#""a":1,"asset_forwarder_timestamp":"{NOW}""#),
        ),
        (
            r#""a":1,"kafka_timestamp":1,"kafka_timestamp_type":"x""#,
            format!(r#""a":1,"asset_forwarder_timestamp":"{NOW}""#),
        ),
        (
            r#""asset_forwarder_timestamp":0,"kafka_timestamp":[1],"b":2"#,
            format!(r#""asset_forwarder_timestamp":"{NOW}","b":2"#),
        ),
    ] {
        let value = format!(r#"{{"id":"x","attributes":{{{attributes}}}}}"#);
        let (_, body) = edited_with(&NO_KAFKA, value.as_bytes()).unwrap();
        assert_eq!(body, format!(r#"{{"attributes":{{{expected}}}}}"#));
    }
    let (_, body) = edited_with(&NO_KAFKA, br#"{"id":"x"}"#).unwrap();
    assert_eq!(
        body,
        format!(r#"{{"attributes":{{"asset_forwarder_timestamp":"{NOW}"}}}}"#)
    );
}

#[test]
fn the_last_attributes_gets_the_stamps() {
    let value = r#"{"a":0,"attributes":{"kafka_timestamp":"old","x":1},"b":1,"id":"x","attributes":null,"c":[2],"attributes":{"y":2},"d":3}"#;
    let expected = format!(
        r#"{{"a":0,"attributes":{{"kafka_timestamp":"old","x":1}},"b":1,"attributes":null,"c":[2],"attributes":{{"y":2,{}}},"d":3}}"#,
        stamped()
    );
    assert_eq!(body(value), expected);
    assert_eq!(
        invalid(r#"{"id":"x","attributes":{},"attributes":null}"#),
        Invalid::BadAttributes
    );
    // The same by its unescaped name; another case is another name.
    assert_eq!(invalid(r#"{"id":"x","\u0061ttributes":1}"#), Invalid::BadAttributes);
    assert_eq!(
        body(r#"{"id":"x","Attributes":1}"#),
        format!(r#"{{"Attributes":1,"attributes":{{{}}}}}"#, stamped())
    );
}

#[test]
fn many_attributes_take_no_longer_than_their_bytes() {
    let many = r#""attributes":{"a":1},"#.repeat(50_000);
    let value = format!(r#"{{{many}"id":"x"}}"#);
    let started = std::time::Instant::now();
    let body = body(&value);
    // Quadratic would be minutes.
    assert!(started.elapsed().as_secs() < 5);
    assert_eq!(body.matches("asset_forwarder_timestamp").count(), 1);
    assert!(body.ends_with(&format!(r#"{{"a":1,{}}}}}"#, stamped())));
}

#[test]
fn ids_are_strings_unescaped_or_numbers_as_written() {
    for (value, expected) in [
        (r#""x""#, "x"),
        (r#""a.b""#, "a.b"),
        (r#"" ""#, " "),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u00e9\ud83d\uDE00x\u4e2d""#, "é😀x中"),
        (r#""é😀""#, "é😀"),
        (r#""0""#, "0"),
        ("1", "1"),
        ("-5", "-5"),
        ("1.50", "1.50"),
        ("1e5", "1e5"),
        ("1E+05", "1E+05"),
        ("0.001", "0.001"),
        ("1e-400", "1e-400"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ] {
        assert_eq!(id(&format!(r#"{{"id":{value}}}"#)), expected);
        assert_eq!(id(&format!(r#"{{"a":1,"iD": {value} ,"b":2}}"#)), expected);
    }
}

#[test]
fn what_is_no_id() {
    for value in [
        r#""""#,
        "null",
        "true",
        "false",
        "0",
        "-0",
        "0.0",
        "-0.00",
        "0e5",
        "0E-7",
        "-0.0e+99",
        "[]",
        "[1]",
        "{}",
        r#"{"id":"x"}"#,
        r#"["x"]"#,
    ] {
        assert_eq!(invalid(format!(r#"{{"id":{value}}}"#)), Invalid::NoId, "{value}");
        // The first decides, even if another spelling would do.
        assert_eq!(
            invalid(format!(r#"{{"id":{value},"ID":"x"}}"#)),
            Invalid::NoId,
            "{value}"
        );
    }
    assert_eq!(invalid("{}"), Invalid::NoId);
    assert_eq!(
        invalid(r#"{"_id":"x","idd":"x","i":"d","x":{"id":"x"},"attributes":{"id":"x"}}"#),
        Invalid::NoId
    );
    for lone in [
        r"\ud800",
        r"\udc00",
        r"a\ud83d",
        r"\ud83dx",
        r"\ud83d\n",
        r"\ud83d\ud83d",
        r"\ude00\ud83d",
        r"\ud83dA",
    ] {
        assert_eq!(invalid(format!(r#"{{"id":"{lone}"}}"#)), Invalid::BadSubject, "{lone}");
    }
}

#[test]
fn the_first_spelling_of_id_is_the_id() {
    for (value, expected_id, rest) in [
        (r#"{"ID":"a","id":"b"}"#, "a", r#""id":"b","#),
        (
            r#"{"id":"a","Id":"b","iD":null,"ID":[]}"#,
            "a",
            r#""Id":"b","iD":null,"ID":[],"#,
        ),
        (r#"{"\u0049d":"a","id":"b"}"#, "a", r#""id":"b","#),
        (r#"{"i\u0064":"a","x":1}"#, "a", r#""x":1,"#),
        // Of one name, the last value counts and all go.
        (r#"{"id":"a","x":1,"id":"b"}"#, "b", r#""x":1,"#),
        (r#"{"id":null,"x":1,"id":"b","id":7}"#, "7", r#""x":1,"#),
        (
            r#"{"x":1,"Id":"a","\u0049\u0064":"b","id":"c"}"#,
            "b",
            r#""x":1,"id":"c","#,
        ),
        (r#"{"id":"\ud800","id":"b"}"#, "b", ""),
        // Fullwidth and dotless letters are others.
        (r#"{"ıd":"a","ｉｄ":"b","id":"c"}"#, "c", r#""ıd":"a","ｉｄ":"b","#),
    ] {
        let expected = format!(r#"{{{rest}"attributes":{{{}}}}}"#, stamped());
        assert_eq!(edited(value), (expected_id.to_owned(), expected), "{value}");
    }
    assert_eq!(invalid(r#"{"id":"a","id":null}"#), Invalid::NoId);
    assert_eq!(invalid(r#"{"id":"a","id":""}"#), Invalid::NoId);
}

#[test]
fn what_is_not_understood_is_not_changed() {
    for member in [
        r#""n":[1.0,1.50,1e400,-1E-400,12345678901234567890,-0,0.1e+1,123456789012345678901234567890.5]"#,
        r#""s":"\ud800\udfff\uDEAD \u0000 \/ \u00e9 é 😀 \"""#,
        r#""d":1,"d":2,"d":{"d":1,"d":1}"#,
        r#""":"","\ud800":1"#,
        r#""w":[ 1 ,	2,{ "a" : null } ]"#,
        "\"nel\":\"\u{85}\u{2028}\u{feff}\u{7f}\"",
    ] {
        let expected = format!(r#"{{{member},"attributes":{{{}}}}}"#, stamped());
        assert_eq!(body(&format!(r#"{{{member},"id":"x"}}"#)), expected);
        let expected = format!(r#"{{"attributes":{{{member},{}}}}}"#, stamped());
        assert_eq!(body(&format!(r#"{{"id":"x","attributes":{{{member}}}}}"#)), expected);
    }
}

#[test]
fn what_is_not_json() {
    for value in [
        "",
        " ",
        "{",
        "}",
        "{}{}",
        "{} x",
        "nul",
        "nullx",
        "tru",
        "True",
        "NaN",
        "[Infinity]",
        "-",
        "-Infinity",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "'a'",
        "\"a",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "]",
        "[}",
        "{]",
        "\u{feff}{}",
        "{}\u{feff}",
        "\u{a0}{}",
        "\u{c}{}",
        "\0",
        "{}\0",
        "// c\n{}",
        "[1]]",
    ] {
        assert_eq!(invalid(value), Invalid::NotJson, "{value}");
        if !value.trim_matches(' ').is_empty() {
            assert_eq!(
                invalid(format!(r#"{{"id":"x","a":{value}}}"#)),
                Invalid::NotJson,
                "{value}"
            );
            assert_eq!(invalid(format!(r#"{{"id":{value}}}"#)), Invalid::NotJson, "{value}");
            assert_eq!(
                invalid(format!(r#"{{"id":"x","attributes":{{"kafka_timestamp":{value}}}}}"#)),
                Invalid::NotJson,
                "{value}"
            );
        }
    }
    for value in [
        r#"{"id":"x",}"#,
        r#"{,"id":"x"}"#,
        r#"{"id":"x""a":1}"#,
        r#"{"id""x"}"#,
        r#"{"id":}"#,
        r#"{"id":"x"]"#,
        r#"{id:"x"}"#,
        r#"{"id":"x""#,
        r#"{"id":"x","attributes":{"a":1,}}"#,
        r#"{"id":"x","attributes":{,}}"#,
        r#"{"id":"x","attributes":{"a"}}"#,
        r#"{"id":"x","attributes":{}"#,
        r#"{"id":"x"} {"#,
        r#"{"id":"\x"}"#,
        r#"{"id":"\u12"}"#,
        r#"{"id":"\u12g4"}"#,
        r#"{"id":"\u+123"}"#,
        r#"{"a":"\","id":"x"}"#,
        "{\"id\":\"a\nb\"}",
        "{\"id\":\"x\",\"a\":\"\u{1f}........\"}",
        "{\"id\":\"x\",\"a\":\"........\0.......\"}",
        r#"{"id":"x"},"#,
        r#"{"id":1.e5}"#,
        r#"{"id":"x","a":{"b":1,}}"#,
        r#"{"id":"x","a":{"b" 1}}"#,
        r#"{"id":"x","a":{1:1}}"#,
    ] {
        assert_eq!(invalid(value), Invalid::NotJson, "{value}");
    }
}

#[test]
fn what_is_no_object_or_no_text() {
    for value in ["null", "1", " true ", r#""x""#, "[]", r#"[{"id":"x"}]"#, "-0.5e3"] {
        assert_eq!(invalid(value), Invalid::NotAnObject, "{value}");
    }
    assert_eq!(invalid(b"{\"id\":\"\xff\"}"), Invalid::NotUtf8);
    assert_eq!(invalid(b"{\"id\":\"x\"}\xc3"), Invalid::NotUtf8);
    // A surrogate or an overlong form as bytes is not UTF-8.
    assert_eq!(invalid(b"{\"id\":\"x\",\"a\":\"\xed\xa0\x80\"}"), Invalid::NotUtf8);
    assert_eq!(invalid(b"{\"id\":\"x\",\"a\":\"\xc0\x80\"}"), Invalid::NotUtf8);
    for value in ["null", "1", "true", r#""x""#, "[]"] {
        assert_eq!(
            invalid(format!(r#"{{"id":"x","attributes":{value}}}"#)),
            Invalid::BadAttributes,
            "{value}"
        );
    }
}

#[test]
fn the_first_fault_in_order_counts() {
    assert_eq!(invalid(b"{\"id\":null,\xff"), Invalid::NotUtf8);
    assert_eq!(invalid(r#"{"id":null,"attributes":1"#), Invalid::NotJson);
    assert_eq!(invalid("[] x"), Invalid::NotJson);
    assert_eq!(invalid(r#"{"id":null,"attributes":1}"#), Invalid::BadAttributes);
    assert_eq!(invalid(r#"{"id":"\ud800","attributes":1}"#), Invalid::BadAttributes);
}

#[test]
fn nesting_has_a_limit_and_no_stack_to_overflow() {
    let nested = |levels: usize, open: &str, close: &str, inner: &str| {
        format!(
            r#"{{"id":"x","a":{}{inner}{}}}"#,
            open.repeat(levels),
            close.repeat(levels)
        )
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"[{"a":"#, "}]")] {
        let levels = (MAX_DEPTH - 1) / open.matches(['[', '{']).count();
        assert!(body(&nested(levels, open, close, "1")).len() > levels);
        assert_eq!(invalid(nested(levels + 1, open, close, "1")), Invalid::TooDeep);
    }
    let levels = MAX_DEPTH - 1;
    assert_eq!(invalid(nested(levels, "[", "]", "[]")), Invalid::TooDeep);
    assert_eq!(invalid(nested(levels, "[", "]", "{}")), Invalid::TooDeep);
    assert_eq!(invalid(nested(2_000_000, "[", "]", "")), Invalid::TooDeep);
    assert_eq!(invalid("[".repeat(2_000_000)), Invalid::TooDeep);
    assert_eq!(invalid("{\"a\":".repeat(2_000_000)), Invalid::TooDeep);
    // Closing brackets are those of what is open, at any depth.
    for depth in [1, 63, 64, 65, 128, 300] {
        assert_eq!(
            invalid(format!(
                r#"{{"id":"x","a":{}{{]{}}}"#,
                "[".repeat(depth),
                "]".repeat(depth)
            )),
            Invalid::NotJson
        );
        assert_eq!(
            invalid(format!(
                "{{\"id\":\"x\",\"a\":{}[]}}{}}}",
                "[".repeat(depth),
                "]".repeat(depth)
            )),
            Invalid::NotJson
        );
    }
    // In `attributes` too, where a level more is open.
    let value = |levels| {
        format!(
            r#"{{"id":"x","attributes":{{"a":{}{}}}}}"#,
            "[".repeat(levels),
            "]".repeat(levels)
        )
    };
    assert!(edited_with(&STAMPS, value(MAX_DEPTH - 2).as_bytes()).is_ok());
    assert_eq!(invalid(value(MAX_DEPTH - 1)), Invalid::TooDeep);
}

#[test]
fn a_special_byte_is_found_wherever_it_stands() {
    // Among plain bytes and among ones with the high bit, in every place of a word and of the rest after words.
    for (filler, place, byte) in ["..", "é"]
        .into_iter()
        .flat_map(|filler| (0..20).flat_map(move |place| (0..=0x7fu8).map(move |byte| (filler, place, byte))))
    {
        let (before, after) = (filler.repeat(place), filler.repeat(19 - place));
        let value = format!("{{\"id\":\"x\",\"a\":\"{before}{}{after}\"}}", char::from(byte));
        let agrees = serde_json::from_str::<IgnoredAny>(&value).is_ok();
        assert_eq!(edited_with(&STAMPS, value.as_bytes()).is_ok(), agrees, "{value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_edit_does_what_the_model_does((record, written) in generate::record(), with_kafka: bool) {
        let stamps = if with_kafka { STAMPS } else { NO_KAFKA };
        let actual = edited_with(&stamps, written.as_bytes()).map(|(id, body)| (id, parse(&body)));
        prop_assert_eq!(actual, expected(&stamps, &record), "{}", written);
    }

    #[test]
    fn what_is_valid_is_what_serde_json_takes((_, written) in generate::record(), cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..4)) {
        let mut value = written.into_bytes();
        for (at, byte, how) in cuts {
            // Mostly bytes that mean something.
            let byte = *b"{}[]:,\"\\u0e-.+ 1tnfid\n\x00\x1f".get(usize::from(byte)).unwrap_or(&byte);
            let at = at.index(value.len() + 1);
            match how {
                0 => value.insert(at, byte),
                1 if at < value.len() => value[at] = byte,
                _ => value.truncate(at.max(value.len().saturating_sub(1))),
            }
        }
        agrees(&value)?;
    }

    #[test]
    fn arbitrary_bytes_are_judged_like_serde_json(value: Vec<u8>) {
        agrees(&value)?;
    }

    #[test]
    fn arbitrary_json_bytes_are_judged_like_serde_json(value in r#"[\[\]{}:,"\\u0-1eE.+\- tnfalsrude\n\t]{0,24}"#) {
        agrees(value.as_bytes())?;
        agrees(format!(r#"{{"id":{value}}}"#).as_bytes())?;
        agrees(format!(r#"{{"attributes":{{{value}}},"id":1}}"#).as_bytes())?;
    }
}

fn agrees(value: &[u8]) -> Result<(), TestCaseError> {
    let result = edited_with(&STAMPS, value);
    let syntax = !matches!(result, Err(Invalid::NotUtf8 | Invalid::NotJson | Invalid::TooDeep));
    // `IgnoredAny` alone does not look at the bytes of strings.
    let theirs = std::str::from_utf8(value).is_ok() && serde_json::from_slice::<IgnoredAny>(value).is_ok();
    prop_assert_eq!(syntax, theirs, "{:?} {:?}", result, String::from_utf8_lossy(value));
    if let Ok((_, body)) = result {
        prop_assert!(serde_json::from_str::<IgnoredAny>(&body).is_ok(), "{}", body);
    }
    Ok(())
}
