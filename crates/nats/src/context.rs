//! The contexts of the nats tool: files that name a server and a login.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::exit::{Code, Failure};
use crate::server::Login;

/// What of a context's file matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    url: String,
    user: String,
    password: String,
    token: String,
    creds: String,
    nkey: String,
    ca: String,
    cert: String,
    key: String,
    tls_first: bool,
}

/// Completes a login by a context: the one with this name, or the selected one if the login names no server.
pub fn complete(login: Login, name: Option<&str>) -> Result<Login, Failure> {
    match folder() {
        Some(folder) => complete_from(&folder, login, name),
        None => Ok(login),
    }
}

fn folder() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty());
    Some(config.map(PathBuf::from).or_else(home)?.join("nats"))
}

fn complete_from(folder: &Path, login: Login, name: Option<&str>) -> Result<Login, Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None if login.server.is_some() => return Ok(login),
        None => match std::fs::read_to_string(folder.join("context.txt")) {
            Ok(name) if !name.trim().is_empty() => name.trim().to_owned(),
            _ => return Ok(login),
        },
    };
    if name.contains('/') {
        return Err(Failure::new(Code::Usage, format_args!("{name} is not the name of a context")));
    }
    let path = folder.join("context").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NotFound,
            std::io::ErrorKind::PermissionDenied => Code::Denied,
            _ => Code::Failure,
        };
        Failure::new(code, format_args!("the context {name}: {}: {error}", path.display()))
    })?;
    let context: Context = serde_json::from_str(&text)
        .map_err(|error| Failure::new(Code::Failure, format_args!("{}: {error}", path.display())))?;
    let text = |said: Option<String>, found: String| said.or(Some(found).filter(|found| !found.is_empty()));
    let file = |said: Option<PathBuf>, found: String| {
        said.or(Some(found).filter(|found| !found.is_empty()).map(PathBuf::from))
    };
    Ok(Login {
        server: text(login.server, context.url),
        user: text(login.user, context.user),
        password: text(login.password, context.password),
        token: text(login.token, context.token),
        creds: file(login.creds, context.creds),
        nkey: file(login.nkey, context.nkey),
        tls_ca: file(login.tls_ca, context.ca),
        tls_cert: file(login.tls_cert, context.cert),
        tls_key: file(login.tls_key, context.key),
        tls_first: login.tls_first || context.tls_first,
        monitor: login.monitor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selected_context_names_the_server_and_the_login() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::create_dir(folder.join("context")).unwrap();
        let context = r#"{"description": "", "url": "nats://far:4222", "token": "", "user": "me", "password": "x", "creds": "/c"}"#;
        std::fs::write(folder.join("context/far.json"), context).unwrap();
        let none = complete_from(folder, Login::default(), None).unwrap();
        assert_eq!(none, Login::default());
        std::fs::write(folder.join("context.txt"), "far\n").unwrap();
        let selected = complete_from(folder, Login::default(), None).unwrap();
        assert_eq!(selected.server.as_deref(), Some("nats://far:4222"));
        assert_eq!((selected.user.as_deref(), selected.token), (Some("me"), None));
        assert_eq!(selected.creds, Some(PathBuf::from("/c")));
        let said = Login { server: Some("nats://near".to_owned()), ..Login::default() };
        assert_eq!(complete_from(folder, said.clone(), None).unwrap(), said);
        let both = complete_from(folder, said, Some("far")).unwrap();
        assert_eq!((both.server.as_deref(), both.user.as_deref()), (Some("nats://near"), Some("me")));
        assert_eq!(complete_from(folder, Login::default(), Some("near")).unwrap_err().code, Code::NotFound);
    }
}
