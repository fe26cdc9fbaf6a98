//! Who a process is: names of the image's own /etc/passwd and /etc/group, as containerd looks them up.

use super::edit::{at, set};
use crate::error::Result;
use crate::fail;
use serde_json::{Value, json};

/// Reads a file of the container's root filesystem, links resolved inside it; `None` if there is none.
pub type Read<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>;

/// The largest id that runc takes.
const LARGEST: i64 = i32::MAX as i64;

struct Entry {
    name: String,
    uid: i64,
    gid: i64,
}

struct Group {
    name: String,
    gid: i64,
    members: Vec<String>,
}

fn number(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn lines(read: Read, path: &str) -> Result<Option<Vec<String>>> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()))
}

fn passwd(read: Read, wanted: impl Fn(&Entry) -> bool) -> Result<Option<Entry>> {
    let entry = |line: &String| {
        let mut parts = line.split(':').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        Entry { name, uid: number(parts.nth(1)), gid: number(parts.next()) }
    };
    Ok(lines(read, "/etc/passwd")?.into_iter().flatten().map(|line| entry(&line)).find(|entry| wanted(entry)))
}

fn groups(read: Read) -> Result<Vec<Group>> {
    let group = |line: &String| {
        let mut parts = line.split(':').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        let gid = number(parts.nth(1));
        let members = parts.next().unwrap_or_default().split(',').map(|m| m.trim().to_owned()).collect();
        Group { name, gid, members }
    };
    Ok(lines(read, "/etc/group")?.into_iter().flatten().map(|line| group(&line)).collect())
}

/// A number, if it is one; an id that is too large is none that runc would take.
fn id(text: &str, whole: &str) -> Result<Option<i64>> {
    match text.parse::<i64>() {
        Ok(id) if (0..=LARGEST).contains(&id) => Ok(Some(id)),
        Ok(_) => fail!(Invalid, "user {whole}: an id goes from 0 to {LARGEST}"),
        Err(_) => Ok(None),
    }
}

/// The first of the groups is always the process's own.
fn own_group_first(spec: &mut Value) {
    let user = at(spec, &["process", "user"]);
    let gid = user["gid"].as_i64().unwrap_or(0);
    let mut all: Vec<i64> = user["additionalGids"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
    if !all.contains(&gid) {
        all.insert(0, gid);
    }
    user["additionalGids"] = json!(all);
}

/// Sets user and group: `name`, `uid`, `name:group`, `uid:gid` and so on.
pub fn set_user(spec: &mut Value, user: &str, read: Read) -> Result<()> {
    let (uid, gid) = resolve(user, read)?;
    set(spec, &["process", "user", "uid"], uid);
    set(spec, &["process", "user", "gid"], gid);
    super::edit::remove(spec, &["process", "user", "additionalGids"]);
    own_group_first(spec);
    Ok(())
}

fn resolve(user: &str, read: Read) -> Result<(i64, i64)> {
    let parts: Vec<&str> = user.split(':').collect();
    let named = |name: &str| match passwd(read, |entry| entry.name == name)? {
        Some(entry) => Ok(entry),
        None => fail!(NotFound, "user {user}: the image's /etc/passwd has no {name}"),
    };
    match parts[..] {
        [one] => match id(one, user)? {
            // Somebody whom the image does not know is in group 0.
            Some(uid) => Ok((uid, passwd(read, |entry| entry.uid == uid)?.map_or(0, |entry| entry.gid))),
            None => named(one).map(|entry| (entry.uid, entry.gid)),
        },
        [one, group] => {
            let uid = match id(one, user)? {
                Some(uid) => uid,
                None => named(one)?.uid,
            };
            let gid = match id(group, user)? {
                Some(gid) => gid,
                None => match groups(read)?.into_iter().find(|g| g.name == group) {
                    Some(group) => group.gid,
                    None => return fail!(NotFound, "user {user}: the image's /etc/group has no {group}"),
                },
            };
            Ok((uid, gid))
        }
        _ => fail!(Invalid, "user {user}: write NAME or NAME:GROUP, each a name or a number"),
    }
}

/// Adds the groups that the image's /etc/group names the user in.
pub fn add_groups(spec: &mut Value, user: &str, read: Read) -> Result<()> {
    super::edit::remove(spec, &["process", "user", "additionalGids"]);
    let name = match user.parse::<i64>() {
        Ok(uid) => passwd(read, |entry| entry.uid == uid)?.map(|entry| entry.name),
        Err(_) => Some(user.to_owned()),
    };
    if let Some(name) = name {
        let all = groups(read)?.into_iter().filter(|g| g.name != name && g.members.contains(&name));
        set(spec, &["process", "user", "additionalGids"], all.map(|g| g.gid).collect::<Vec<_>>());
    }
    own_group_first(spec);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\nweb:x:33:7::/:\nodd\n";
    const GROUP: &str = "root:x:0:root\nadm:x:4:root,web\nweb:x:33:web\n";

    fn read(path: &str) -> Result<Option<Vec<u8>>> {
        Ok(Some(if path == "/etc/passwd" { PASSWD } else { GROUP }.into()))
    }

    fn user(text: &str) -> Value {
        let mut spec = json!({});
        set_user(&mut spec, text, &read).unwrap();
        spec["process"]["user"].clone()
    }

    #[test]
    fn users_are_names_or_numbers() {
        assert_eq!(user("web"), json!({"uid": 33, "gid": 7, "additionalGids": [7]}));
        assert_eq!(user("33"), json!({"uid": 33, "gid": 7, "additionalGids": [7]}));
        assert_eq!(user("1000"), json!({"uid": 1000, "gid": 0, "additionalGids": [0]}));
        assert_eq!(user("web:adm"), json!({"uid": 33, "gid": 4, "additionalGids": [4]}));
        assert_eq!(user("5:6"), json!({"uid": 5, "gid": 6, "additionalGids": [6]}));
        let refused = |text: &str| set_user(&mut json!({}), text, &read).unwrap_err().kind();
        assert_eq!(refused("nobody"), Kind::NotFound);
        assert_eq!(refused("web:none"), Kind::NotFound);
        assert_eq!(refused("a:b:c"), Kind::Invalid);
        assert_eq!(refused("4294967296"), Kind::Invalid);
        assert_eq!(refused("-1"), Kind::Invalid);
    }

    #[test]
    fn groups_come_from_the_image() {
        let mut spec = json!({"process": {"user": {"uid": 0, "gid": 0}}});
        add_groups(&mut spec, "root", &read).unwrap();
        assert_eq!(spec["process"]["user"]["additionalGids"], json!([0, 4]));
        let mut spec = json!({"process": {"user": {"uid": 33, "gid": 7}}});
        add_groups(&mut spec, "33", &read).unwrap();
        assert_eq!(spec["process"]["user"]["additionalGids"], json!([7, 4]));
        let none: Read = &|_| Ok(None);
        add_groups(&mut spec, "33", none).unwrap();
        assert_eq!(spec["process"]["user"]["additionalGids"], json!([7]));
    }
}
