//! What is refused, what is forgiven, and what of a message is only borrowed.

use std::borrow::Cow;

use tidegate_protocol::{Codec, Command, Request};

use crate::decoded;

const PING: Command<'_> = Command { id: 1, request: Request::Ping };
const PONG: Command<'_> = Command { id: 0, request: Request::Pong };

fn json(text: &str) -> Result<Vec<Command<'_>>, String> {
    let (commands, end) = decoded(Codec::Json, text.as_bytes());
    end.map(|()| commands).map_err(|error| error.to_string())
}

fn protobuf(bytes: &[u8]) -> Result<Vec<Command<'_>>, String> {
    let (commands, end) = decoded(Codec::Protobuf, bytes);
    end.map(|()| commands).map_err(|error| error.to_string())
}

#[test]
fn a_message_without_a_command_is_refused() {
    for text in ["", " ", "\n", " \n\t\r\n "] {
        assert_eq!(json(text), Err("a message without a command".into()), "{text:?}");
    }
    assert_eq!(protobuf(b""), Err("a message without a command".into()));
}

#[test]
fn json_that_is_no_command_is_refused() {
    for text in [
        "1",
        "null",
        "\"connect\"",
        "[]",
        "[{}]",
        "{",
        "{}}",
        "{} x",
        "{\"id\":1,}",
        "{id:1}",
        "{'id':1}",
        "{}\u{feff}",
        // A command of the wrong shape.
        r#"{"id":"1","ping":{}}"#,
        r#"{"id":-1,"ping":{}}"#,
        r#"{"id":1.5,"ping":{}}"#,
        r#"{"id":1,"ping":1}"#,
        r#"{"id":1,"ping":[]}"#,
        r#"{"id":1,"unsubscribe":["news"]}"#,
        r#"{"id":1,"unsubscribe":{"channel":7}}"#,
        r#"{"id":1,"subscribe":{"channel":"a","recover":1}}"#,
        r#"{"id":1,"subscribe":{"channel":"a","offset":-1}}"#,
        r#"{"id":1,"subscribe":{"channel":"a","offset":18446744073709551616}}"#,
        r#"{"id":1,"connect":{"subs":[1]}}"#,
        "{\"id\":1,\"unsubscribe\":{\"channel\":\"a\nb\"}}",
        r#"{"id":1,"unsubscribe":{"channel":"\ud800"}}"#,
    ] {
        assert!(json(text).is_err(), "{text}");
    }
    assert_eq!(decoded(Codec::Json, b"{\"x\":\"\xff\"}").1.unwrap_err().0, "text that is not UTF-8");
}

#[test]
fn protobuf_that_is_no_command_is_refused() {
    let beyond = "a length beyond the end of the message";
    let wrong = "a field of the wrong wire type";
    for (bytes, error) in [
        (&[1][..], beyond),
        (&[0x80], "a varint without an end"),
        (&[2, 0x08], beyond),
        (&[1, 0x08], "a varint without an end"),
        (&[3, 0x08, 1, 0x5a], "a varint without an end"),
        (&[4, 0x08, 1, 0x5a, 1], beyond),
        (&[2, 0x00, 0x00], "a field tag of zero"),
        (&[2, 0x0b, 0x0c], "a field of an unknown wire type"),
        // The id as bytes, ping as a number, a channel as a number, `recover` as bytes.
        (&[3, 0x0a, 1, 1], wrong),
        (&[4, 0x08, 1, 0x58, 1], wrong),
        (&[6, 0x08, 1, 0x32, 2, 0x08, 1], wrong),
        (&[6, 0x08, 1, 0x2a, 2, 0x1a, 0], wrong),
        (&[7, 0x08, 1, 0x32, 3, 0x0a, 1, 0xff], "text that is not UTF-8"),
    ] {
        assert_eq!(protobuf(bytes), Err(error.into()), "{bytes:?}");
    }
}

#[test]
fn an_id_has_32_bits() {
    assert_eq!(json(r#"{"id":4294967295,"ping":{}}"#), Ok(vec![Command { id: u32::MAX, ..PING }]));
    assert!(json(r#"{"id":4294967296,"ping":{}}"#).is_err());
    let max = [8, 0x08, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x5a, 0];
    assert_eq!(protobuf(&max), Ok(vec![Command { id: u32::MAX, ..PING }]));
    let beyond = [8, 0x08, 0x81, 0x80, 0x80, 0x80, 0x10, 0x5a, 0];
    assert_eq!(protobuf(&beyond), Err("an id of more than 32 bits".into()));
}

#[test]
fn a_command_that_needs_a_reply_needs_an_id() {
    for text in [r#"{"ping":{}}"#, r#"{"id":0,"connect":{}}"#, r#"{"publish":{"channel":"a","data":1}}"#] {
        assert_eq!(json(text), Err("a command that needs a reply but has no id".into()), "{text}");
    }
    assert_eq!(protobuf(&[2, 0x5a, 0]), Err("a command that needs a reply but has no id".into()));
}

#[test]
fn a_send_has_no_id_even_if_it_was_given_one() {
    let send = |data| Ok(vec![Command { id: 0, request: Request::Send { data } }]);
    assert_eq!(json(r#"{"send":{"data":1}}"#), send(b"1"));
    assert_eq!(json(r#"{"id":9,"send":{"data":1}}"#), send(b"1"));
    assert_eq!(protobuf(&[7, 0x08, 9, 0x62, 3, 0x0a, 1, b'1']), send(b"1"));
}

#[test]
fn an_id_with_no_known_request_is_refused_and_nothing_at_all_is_a_pong() {
    for text in [r#"{"id":1}"#, r#"{"id":1,"dance":{}}"#, r#"{"id":1,"connect":null}"#] {
        assert_eq!(json(text), Err("a command with an id but no known request".into()), "{text}");
    }
    assert_eq!(protobuf(&[2, 0x08, 1]), Err("a command with an id but no known request".into()));
    assert_eq!(json(r#"{}"#), Ok(vec![PONG]));
    assert_eq!(json(r#"{"id":0,"note":[1]}"#), Ok(vec![PONG]));
    assert_eq!(protobuf(&[0]), Ok(vec![PONG]));
}

#[test]
fn a_command_has_one_request() {
    for text in
        [r#"{"id":1,"ping":{},"connect":{}}"#, r#"{"id":1,"ping":{},"ping":{}}"#, r#"{"send":{},"send":{}}"#]
    {
        assert_eq!(json(text), Err("a command with more than one request".into()), "{text}");
    }
    assert_eq!(protobuf(&[6, 0x08, 1, 0x5a, 0, 0x22, 0]), Err("a command with more than one request".into()));
}

#[test]
fn unknown_fields_are_skipped_whatever_they_hold() {
    let text = r#"{"x":[{"y":[null,"}"]}],"id":1,"ping":{"a":{"b":[1e400]}},"z":"\n"}"#;
    assert_eq!(json(text), Ok(vec![PING]));
    // Tags 16 and up as each wire type there is.
    let bytes = [
        24, 0x80, 0x01, 5, 0x08, 1, 0x89, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 0x5a, 0, 0x95, 0x01, 1, 2, 3, 4, 0x1a,
    ];
    assert!(protobuf(&bytes).is_err(), "the last field has no length");
    let bytes = [&[25][..], &bytes[1..], &[0]].concat();
    assert_eq!(protobuf(&bytes), Ok(vec![PING]));
}

#[test]
fn null_is_an_absent_field_except_as_a_payload() {
    let text = r#"{"id":1,"connect":{"token":null,"data":null,"name":null,"subs":null}}"#;
    let commands = json(text).unwrap();
    let Request::Connect(connect) = &commands[0].request else { panic!("{commands:?}") };
    assert_eq!((connect.token.as_ref(), connect.data, connect.subs), ("", &b"null"[..], 0));
    let text = r#"{"id":1,"subscribe":{"channel":"a","recover":null,"offset":null,"epoch":null}}"#;
    assert!(json(text).is_ok());
}

#[test]
fn newlines_inside_a_json_command_do_no_harm() {
    let text = "\n{\r\n  \"id\": 1,\n  \"ping\": {\n  }\n}\n\n{}\r\n{\"id\":1,\"ping\":{}}\n";
    assert_eq!(json(text), Ok(vec![PING, PONG, PING]));
}

#[test]
fn the_commands_before_a_bad_one_are_given() {
    let (commands, end) = decoded(Codec::Json, b"{\"id\":1,\"ping\":{}}\n{}\nnonsense\n{}");
    assert_eq!((commands, end.is_err()), (vec![PING, PONG], true));
    let (commands, end) = decoded(Codec::Protobuf, &[4, 0x08, 1, 0x5a, 0, 0, 2, 0, 0, 0]);
    assert_eq!((commands, end.is_err()), (vec![PING, PONG], true));
}

#[test]
fn decoding_stops_when_it_is_told_to() {
    for (codec, message) in [(Codec::Json, &b"{}{}nonsense"[..]), (Codec::Protobuf, &[0, 0, 9])] {
        let mut count = 0;
        let end = codec.commands(message, |_| {
            count += 1;
            count < 2
        });
        assert_eq!((count, end), (2, Ok(())));
    }
}

#[test]
fn payloads_and_plain_text_are_borrowed_from_the_message() {
    let text = br#"{"id":1,"publish":{"channel":"news","data": {"a" : "\u00e9"} }}"#;
    let bytes = b"\x0f\x08\x01\x3a\x0b\x0a\x04news\x12\x03{ }";
    for (codec, message) in [(Codec::Json, &text[..]), (Codec::Protobuf, &bytes[..])] {
        let (commands, end) = decoded(codec, message);
        assert_eq!(end, Ok(()));
        let Request::Publish { channel: Cow::Borrowed(channel), data } = commands[0].request else {
            panic!("{commands:?}")
        };
        assert_eq!(channel, "news");
        let range = message.as_ptr_range();
        assert!(range.contains(&channel.as_ptr()) && range.contains(&data.as_ptr()));
    }
    let (commands, _) = decoded(Codec::Json, text);
    let Request::Publish { data, .. } = commands[0].request else { panic!("{commands:?}") };
    assert_eq!(data, br#"{"a" : "\u00e9"}"#);
}

#[test]
fn text_with_escapes_is_understood() {
    let commands = json(r#"{"id":1,"unsubscribe":{"channel":"a\"\u00e9\ud83c\udf0a"}}"#).unwrap();
    assert_eq!(commands[0].request, Request::Unsubscribe { channel: "a\"é🌊".into() });
}

#[test]
fn depth_does_not_cost_stack() {
    // A small stack would be passed at once by anything that recurses.
    let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(|| {
        let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
        assert_eq!(json(&format!(r#"{{"id":1,"x":{deep},"ping":{{"y":{deep}}}}}"#)), Ok(vec![PING]));
        let text = format!(r#"{{"id":1,"rpc":{{"data":{deep}}}}}"#);
        assert_eq!(json(&text).unwrap().len(), 1);
        assert!(json(&"{\"id\":".repeat(1 << 20)).is_err());
        assert!(json(&"[".repeat(1 << 20)).is_err());
    });
    thread.unwrap().join().unwrap();
}
