//! Payloads: what is let in, and that it stays as it was but for newlines.

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_protocol::codec::json::{MAX_PAYLOAD_DEPTH, NotJson, payload, payload_from};

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn any_json_value_is_let_in_byte_for_byte() {
    for text in [
        r#"{"text":"hello"}"#,
        "null",
        "true",
        "-0.1e+400",
        r#""""#,
        "[]",
        " { \"a\" :\t1 } ",
        r#"{"a":1,"a":2}"#,
        r#""\ud800 \u0000 \/ é 🌊""#,
        "123456789012345678901234567890",
    ] {
        assert_eq!(payload(text.as_bytes()), Ok(Bytes::copy_from_slice(text.as_bytes())), "{text}");
    }
}

#[test]
fn what_is_not_one_json_value_is_refused() {
    for text in [
        "",
        " ",
        "hello",
        "{",
        "{}}",
        "{} {}",
        "[1,]",
        "{\"a\":}",
        "01",
        "+1",
        "NaN",
        "'a'",
        "\"a",
        "\"\n\"",
        "\"\r\"",
        "\"\t\"",
        "\"\0\"",
        r#""\x""#,
        "\u{feff}1",
        "{a:1}",
        "// x\n1",
    ] {
        assert_eq!(payload(text.as_bytes()), Err(NotJson::Syntax), "{text:?}");
        assert_eq!(payload_from(Bytes::from(text)), Err(NotJson::Syntax), "{text:?}");
    }
    assert_eq!(payload(b"\"\xff\""), Err(NotJson::Utf8));
    assert_eq!(payload(b"\"\xed\xa0\x80\""), Err(NotJson::Utf8));
}

#[test]
fn no_newline_reaches_the_wire() {
    let text = "\n{\r\n  \"a\": \"\\n\",\n\r  \"b\": [1,\n2]\r}\n";
    let clean = " {    \"a\": \"\\n\",    \"b\": [1, 2] } ";
    assert_eq!(payload(text.as_bytes()).unwrap(), clean);
    assert_eq!(payload_from(Bytes::from(text)).unwrap(), clean);
}

#[test]
fn bytes_without_a_newline_are_not_copied() {
    let given = Bytes::from(String::from(r#"{"text":"hello"}"#));
    assert_eq!(payload_from(given.clone()).unwrap().as_ptr(), given.as_ptr());
}

#[test]
fn nesting_has_a_bound_and_only_nesting_counts() {
    assert!(payload(nested(MAX_PAYLOAD_DEPTH).as_bytes()).is_ok());
    assert_eq!(payload(nested(MAX_PAYLOAD_DEPTH + 1).as_bytes()), Err(NotJson::TooDeep));
    let objects = r#"{"a":"#.repeat(MAX_PAYLOAD_DEPTH) + "{}" + &"}".repeat(MAX_PAYLOAD_DEPTH);
    assert_eq!(payload(objects.as_bytes()), Err(NotJson::TooDeep));
    let wide = format!("[{}{{}}]", "[[]],{},".repeat(1000));
    assert!(payload(wide.as_bytes()).is_ok());
    let quoted = format!(r#"["\"{}\\",{{"\\":"{}"}}]"#, "[".repeat(1000), "{".repeat(1000));
    assert!(payload(quoted.as_bytes()).is_ok());
}

#[test]
fn a_bomb_of_brackets_does_not_cost_stack() {
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(|| {
        assert_eq!(payload(nested(1 << 20).as_bytes()), Err(NotJson::TooDeep));
        assert_eq!(payload("[".repeat(1 << 20).as_bytes()), Err(NotJson::Syntax));
        assert_eq!(payload(r#"{"a":"#.repeat(1 << 20).as_bytes()), Err(NotJson::Syntax));
    });
    thread.unwrap().join().unwrap();
}

proptest! {
    #[test]
    fn a_payload_means_what_it_meant(text in "[\\[\\]{}\",:0-9a-z\\\\ \n\r-]{0,40}") {
        let meaning = serde_json::from_str::<serde_json::Value>(&text);
        if let (Ok(before), Ok(clean)) = (meaning, payload(text.as_bytes())) {
            prop_assert!(!clean.contains(&b'\n') && !clean.contains(&b'\r'));
            prop_assert_eq!(clean.len(), text.len());
            prop_assert_eq!(before, serde_json::from_slice::<serde_json::Value>(&clean).unwrap());
        }
    }
}
