//! Typed documents and events, as JSON: a small reader of the protobuf wire, led by [`super::schema`].

use super::schema;
use serde_json::{Map, Value, json};

/// Messages in messages, at most.
const DEPTH: u32 = 16;

/// A typed document as JSON: itself where it is JSON, decoded where the type is known, else type and bytes.
pub(super) fn document(type_url: &str, value: &[u8]) -> Value {
    if let Some(decoded) = known(type_url, value) {
        return decoded;
    }
    // Go's typeurl keeps what is no protobuf message as JSON, whatever the type is called.
    if matches!(value.first(), Some(b'{' | b'['))
        && let Ok(json) = serde_json::from_slice(value)
    {
        return json;
    }
    json!({"type_url": type_url, "value_base64": base64(value)})
}

/// The same, if the type is in the table and the bytes are of it.
pub(super) fn known(type_url: &str, value: &[u8]) -> Option<Value> {
    let name = type_url.rsplit('/').next().unwrap_or_default();
    message(schema::fields(name)?, value, DEPTH)
}

/// A time as RFC 3339 has it, with as many digits as it needs; none for one that is no time (year 1 means unset).
pub(super) fn time(seconds: i64, nanos: i32) -> Option<String> {
    let unset = seconds <= -62_135_596_800;
    let time = jiff::Timestamp::new(seconds, nanos).ok();
    time.filter(|_| !unset).map(|t| t.to_string())
}

/// Standard base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |g, b| g << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS.get((group >> (18 - 6 * i) & 63) as usize).copied().unwrap_or(b'=');
            text.push(if i <= chunk.len() { digit as char } else { '=' });
        }
    }
    text
}

/// One field of a row of the table.
struct Field<'a> {
    name: &'a str,
    number: u64,
    kind: &'a str,
    repeated: bool,
}

fn rows(fields: &str) -> impl Iterator<Item = Field<'_>> {
    fields.split_whitespace().filter_map(|word| {
        let (name, rest) = word.split_once('=')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, kind) = rest.split_at(digits);
        let repeated = name.starts_with('*');
        Some(Field { name: name.trim_start_matches('*'), number: number.parse().ok()?, kind, repeated })
    })
}

/// A message as an object: plain fields are always there, others only if they were sent.
fn message(fields: &str, bytes: &[u8], depth: u32) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let mut object = Map::new();
    for field in rows(fields).filter(|f| !f.repeated) {
        match field.kind {
            "" => drop(object.insert(field.name.into(), json!(""))),
            "u" | "i" => drop(object.insert(field.name.into(), json!(0))),
            "d" => drop(object.insert(field.name.into(), json!(0.0))),
            "b" => drop(object.insert(field.name.into(), json!(false))),
            _ => {}
        }
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let wire = wire(key & 7, &mut rest)?;
        let Some(field) = rows(fields).find(|f| f.number == key >> 3) else { continue };
        put(&mut object, &field, wire, depth)?;
    }
    // In the order of the table, whatever the order on the wire was.
    let ordered = rows(fields).filter_map(|f| object.remove_entry(f.name));
    Some(Value::Object(ordered.collect()))
}

/// What a field is on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn wire<'a>(kind: u64, rest: &mut &'a [u8]) -> Option<Wire<'a>> {
    match kind {
        0 => varint(rest).map(Wire::Number),
        1 => cut(rest, 8).map(|b| Wire::Number(b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))),
        2 => {
            let len = varint(rest)?;
            cut(rest, usize::try_from(len).ok()?).map(Wire::Bytes)
        }
        5 => cut(rest, 4).map(|b| Wire::Number(b.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))),
        _ => None,
    }
}

fn put(object: &mut Map<String, Value>, field: &Field<'_>, wire: Wire<'_>, depth: u32) -> Option<()> {
    let value = match (field.kind, wire) {
        ("u", Wire::Number(n)) => json!(n),
        ("i", Wire::Number(n)) => json!(n as i64),
        ("b", Wire::Number(n)) => json!(n != 0),
        ("d", Wire::Number(n)) => json!(f64::from_bits(n)),
        ("u", Wire::Bytes(mut packed)) => {
            while !packed.is_empty() {
                let n = varint(&mut packed)?;
                append(object, field.name, json!(n));
            }
            return Some(());
        }
        ("", Wire::Bytes(text)) => json!(String::from_utf8_lossy(text)),
        ("x", Wire::Bytes(bytes)) => json!(base64(bytes)),
        ("t", Wire::Bytes(bytes)) => {
            let parts = message("seconds=1i nanos=2i", bytes, depth)?;
            let number = |name: &str| parts.get(name).and_then(Value::as_i64).unwrap_or(0);
            json!(time(number("seconds"), i32::try_from(number("nanos")).unwrap_or(0)))
        }
        ("m", Wire::Bytes(bytes)) => {
            let pair = message("key=1 value=2", bytes, depth)?;
            let map = object.entry(field.name).or_insert_with(|| json!({})).as_object_mut()?;
            map.insert(pair.get("key")?.as_str()?.to_string(), pair.get("value")?.clone());
            return Some(());
        }
        ("a", Wire::Bytes(bytes)) => {
            let any = message("type_url=1 value=2", bytes, depth)?;
            json!(any.get("type_url")?)
        }
        (kind, Wire::Bytes(bytes)) => {
            let name = kind.strip_prefix('<')?.strip_suffix('>')?;
            message(schema::fields(name)?, bytes, depth)?
        }
        _ => return None,
    };
    match field.repeated {
        true => append(object, field.name, value),
        false => drop(object.insert(field.name.into(), value)),
    }
    Some(())
}

fn append(object: &mut Map<String, Value>, name: &str, value: Value) {
    if let Some(list) = object.entry(name).or_insert_with(|| json!([])).as_array_mut() {
        list.push(value);
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn cut<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd_client::events;
    use containerd_client::services::v1::ImageCreate;
    use prost::Message;

    #[test]
    fn an_event_is_decoded_with_containerds_field_names() {
        let exit = events::TaskExit {
            container_id: "c".into(),
            id: "c".into(),
            pid: 7,
            exit_status: 137,
            exited_at: Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }),
        };
        let decoded = known("containerd.events.TaskExit", &exit.encode_to_vec()).unwrap();
        let expected =
            r#"{"container_id":"c","id":"c","pid":7,"exit_status":137,"exited_at":"1970-01-01T00:00:01.5Z"}"#;
        assert_eq!(decoded.to_string(), expected);
        let image = ImageCreate { name: "i".into(), labels: [("a".to_string(), "b".to_string())].into() };
        let decoded =
            document("types.googleapis.com/containerd.services.images.v1.ImageCreate", &image.encode_to_vec());
        assert_eq!(decoded, json!({"name": "i", "labels": {"a": "b"}}));
        let create = events::TaskCreate {
            container_id: "c".into(),
            rootfs: vec![Default::default(); 2],
            io: Some(events::TaskIo { stdout: "/x".into(), ..Default::default() }),
            ..Default::default()
        };
        let decoded = known("containerd.events.TaskCreate", &create.encode_to_vec()).unwrap();
        assert_eq!(decoded["rootfs"].as_array().unwrap().len(), 2);
        assert_eq!(decoded["io"]["stdout"], "/x");
    }

    #[test]
    fn what_is_not_known_is_shown_as_it_is() {
        assert_eq!(document("x/Spec", br#"{"a":1}"#), json!({"a": 1}));
        assert_eq!(document("x.Y", b"\x01ab"), json!({"type_url": "x.Y", "value_base64": "AWFi"}));
        for (bytes, text) in
            [(&b""[..], ""), (b"a", "YQ=="), (b"ab", "YWI="), (b"abc", "YWJj"), (b"\xff\xff\xff\xff", "/////w==")]
        {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn every_row_of_the_table_is_well_formed() {
        for (name, fields) in schema::SCHEMAS {
            assert_eq!(rows(fields).count(), fields.split_whitespace().count(), "{name}");
            for field in rows(fields) {
                if let Some(inner) = field.kind.strip_prefix('<') {
                    assert!(schema::fields(inner.trim_end_matches('>')).is_some(), "{name}: {inner}");
                } else {
                    assert!(
                        ["", "u", "i", "b", "d", "t", "m", "a", "x"].contains(&field.kind),
                        "{name}: {}",
                        field.name
                    );
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), n in 0..100usize) {
            let (name, _) = schema::SCHEMAS[n % schema::SCHEMAS.len()];
            document(name, &bytes);
        }
    }
}
