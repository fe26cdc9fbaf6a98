//! A server of tokens as a registry sends its clients to (distribution's "token authentication specification"): it signs what
//! the password allows.

use super::{CERTIFICATE, USER};
use crate::common::shell;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Starts one, with a key of its own in `dir`; where it is. For as long as the process lives.
pub fn serve(dir: &str, asked: &Arc<Mutex<Vec<String>>>) -> String {
    let made = shell::sh(&format!("{CERTIFICATE} 2>/dev/null"), &[("D", dir)], 20);
    assert_eq!(made.code, Some(0), "{made:?}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let (dir, asked) = (dir.to_owned(), Arc::clone(asked));
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (dir, asked) = (dir.clone(), Arc::clone(&asked));
            std::thread::spawn(move || answer(client, &dir, &asked));
        }
    });
    realm
}

fn answer(client: TcpStream, dir: &str, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(client.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let authorization = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
    });
    let known = authorization.as_deref() == Some(&format!("Basic {}", STANDARD.encode(USER)));
    asked.lock().unwrap().push(format!("{} {request}", if known { "me" } else { "somebody" }));
    let (status, body) = match authorization {
        Some(_) if !known => ("401 Unauthorized", json!({"details": "wrong password"})),
        // Whoever does not say who he is may do nothing.
        _ => ("200 OK", json!({"token": token(dir, &request, known), "expires_in": 300})),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
    write!(&client, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).ok()
}

/// A token for all scopes that are asked for, signed by openssl.
fn token(dir: &str, request: &str, known: bool) -> String {
    let query = request.split(' ').nth(1).and_then(|path| path.split_once('?')).map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let access = |scope: &str| {
        let scope = scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let mut parts = scope.splitn(3, ':').map(str::to_owned);
        let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
        Some(json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()}))
    };
    let access: Vec<_> = scopes.filter(|_| known).filter_map(access).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let pem = std::fs::read_to_string(format!("{dir}/server.crt")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let claims = json!({
        "iss": "ctrfs-tests", "sub": "me", "aud": "registry", "jti": now.to_string(),
        "iat": now - 10, "nbf": now - 10, "exp": now + 300, "access": access,
    });
    let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let script = "printf %s \"$T\" | openssl dgst -sha256 -sign \"$D/server.key\" | base64 -w0";
    let signature = shell::sh(script, &[("T", &signed), ("D", dir)], 20).ok();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(STANDARD.decode(signature.trim()).unwrap()))
}
