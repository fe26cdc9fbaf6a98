//! A spec as the JSON that it is: setting, adding and taking away at a path, as Go's types would write it.

use serde_json::{Map, Value};

/// The value at `path`, made with everything above it where it is not there.
pub fn at<'a>(mut value: &'a mut Value, path: &[&str]) -> &'a mut Value {
    for name in path {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        value = match value {
            Value::Object(object) => object.entry(*name).or_insert(Value::Null),
            other => other,
        };
    }
    value
}

/// Sets what stands at `path`.
pub fn set(spec: &mut Value, path: &[&str], value: impl Into<Value>) {
    *at(spec, path) = value.into();
}

/// Takes away what stands at `path`: Go leaves out what is empty.
pub fn remove(spec: &mut Value, path: &[&str]) {
    let Some((last, above)) = path.split_last() else { return };
    if let Some(object) = at(spec, above).as_object_mut() {
        object.shift_remove(*last);
    }
}

/// Changes the list at `path`; an empty one is left out.
pub fn list(spec: &mut Value, path: &[&str], change: impl FnOnce(&mut Vec<Value>)) {
    let mut list = match at(spec, path).take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    change(&mut list);
    match list.is_empty() {
        true => remove(spec, path),
        false => set(spec, path, list),
    }
}

/// The strings of the list at `path`.
pub fn strings(spec: &Value, pointer: &str) -> Vec<String> {
    let list = spec.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
