//! Parses the URL of a database server: the parts that may be displayed, and the options that the gateway handles
//! itself.

use super::StoreError;
use super::error::Reason;
use sqlx::ConnectOptions;
use sqlx::any::AnyConnectOptions;
use std::net::IpAddr;
use std::str::FromStr;

/// The URL option that states the mode of a pooler between the gateway and the server. It has the same name as in
/// PgBouncer.
const POOL_MODE: &str = "pool_mode";
/// The URL option that states which server may be used. It has the same name as in libpq.
const TARGET: &str = "target_session_attrs";
/// The URL options of the driver, besides `options[NAME]`.
const OPTIONS: [&str; 18] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];
/// The names of the option for the mode of TLS.
const MODE: [&str; 2] = ["sslmode", "ssl-mode"];
/// The names of the option for the authority of the server's certificate.
const AUTHORITY: [&str; 3] = ["sslrootcert", "ssl-root-cert", "ssl-ca"];
/// Maximum number of servers in a URL.
const SERVERS_MAX: usize = 16;

/// Parses a URL into the driver's options.
pub(super) fn options(url: &str) -> Result<AnyConnectOptions, StoreError> {
    let options = AnyConnectOptions::from_str(url)
        .map_err(|_| StoreError::trouble(Reason::Other, "the store's URL is not a valid URL".to_owned()))?;
    Ok(options.disable_statement_logging())
}

/// Splits a URL with several servers, `postgres://HOST:PORT,HOST:PORT/DATABASE`, into a URL for each. The driver knows
/// only one server. All other parts of the URL are the same for all servers.
pub(super) fn servers(url: &str) -> Result<Vec<String>, StoreError> {
    let Some((scheme, rest)) = url.split_once("://") else { return Ok(vec![url.to_owned()]) };
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // The user and the password may contain a comma.
    let (user, hosts) = authority.rfind('@').map_or(("", authority), |at| authority.split_at(at + 1));
    let urls: Vec<_> = hosts.split(',').map(|host| format!("{scheme}://{user}{host}{tail}")).collect();
    if urls.len() > SERVERS_MAX || urls.len() > 1 && hosts.split(',').any(str::is_empty) {
        let why = format!("the store's URL must name 1 to {SERVERS_MAX} servers, separated by commas");
        return Err(StoreError::trouble(Reason::Other, why));
    }
    Ok(urls)
}

/// Removes `pool_mode` from the URL, because the driver does not know this option. Returns whether the pooler assigns
/// connections per transaction.
pub(super) fn take_pool_mode(options: &mut AnyConnectOptions) -> Result<bool, StoreError> {
    let mode = take(options, POOL_MODE, "write ?pool_mode=transaction, or leave it out")?;
    match mode.as_deref() {
        None | Some("session") => Ok(false),
        Some("transaction") => Ok(true),
        Some(_) => {
            let why = "pool_mode of the store's URL is neither \"session\" nor \"transaction\": write \
                       ?pool_mode=transaction, or leave it out";
            Err(StoreError::trouble(Reason::Other, why.to_owned()))
        }
    }
}

/// Removes `target_session_attrs` from the URL. Returns whether the server must accept writes.
pub(super) fn take_target(options: &mut AnyConnectOptions) -> Result<bool, StoreError> {
    let target = take(options, TARGET, "write ?target_session_attrs=read-write, or leave it out")?;
    match target.as_deref() {
        None | Some("any") => Ok(false),
        Some("read-write" | "primary") => Ok(true),
        Some(_) => {
            let why = "target_session_attrs of the store's URL is neither \"read-write\" nor \"primary\": the \
                       gateway writes to its store";
            Err(StoreError::trouble(Reason::Other, why.to_owned()))
        }
    }
}

/// Refuses a URL with an option that the driver does not know. The driver would ignore the option, for example
/// `channel_binding=require` or a misspelled `sslmode`. The message does not quote the option, because it may be a part of
/// a password with an unencoded `?`.
pub(super) fn refuse_unknown(options: &AnyConnectOptions) -> Result<(), StoreError> {
    let is_known = |name: &str| OPTIONS.contains(&name) || name.starts_with("options[");
    if options.database_url.query_pairs().all(|(name, _)| is_known(&name)) {
        return Ok(());
    }
    let why = format!(
        "the store's URL has an option that would have no effect: remove it. Known are {POOL_MODE}, {TARGET}, {}",
        OPTIONS.join(", ")
    );
    Err(StoreError::trouble(Reason::Other, why))
}

/// Refuses a URL whose `sslrootcert` would have no effect. The driver verifies the server with `sslmode` `verify-ca` and
/// `verify-full` alone; libpq does also with `require`, if there is such a file.
pub(super) fn refuse_unread_authority(options: &AnyConnectOptions) -> Result<(), StoreError> {
    let pairs = || options.database_url.query_pairs();
    let mode = pairs().filter(|(name, _)| MODE.contains(&&**name)).last().map(|(_, mode)| mode.into_owned());
    let Some(mode) = mode.or_else(|| std::env::var("PGSSLMODE").ok()) else { return Ok(()) };
    let is_verified = ["verify-ca", "verify-full"].iter().any(|verified| mode.eq_ignore_ascii_case(verified));
    if is_verified || !pairs().any(|(name, _)| AUTHORITY.contains(&&*name)) {
        return Ok(());
    }
    let why = "the store's URL has sslrootcert with an sslmode that does not verify the server: write \
               sslmode=verify-full, or remove sslrootcert";
    Err(StoreError::trouble(Reason::Other, why.to_owned()))
}

/// Removes an option from the URL, and returns its value.
fn take(options: &mut AnyConnectOptions, name: &str, hint: &str) -> Result<Option<String>, StoreError> {
    let url = &mut options.database_url;
    let (mut values, rest): (Vec<_>, Vec<_>) = url
        .query_pairs()
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .partition(|(key, _)| key == name);
    let value = values.pop();
    if value.is_some() {
        url.set_query(None);
        if !rest.is_empty() {
            url.query_pairs_mut().extend_pairs(rest);
        }
    }
    if !values.is_empty() {
        let why = format!("{name} of the store's URL is there twice: {hint}");
        return Err(StoreError::trouble(Reason::Other, why));
    }
    Ok(value.map(|(_, value)| value))
}

/// Returns the servers and the database of a URL for display: `postgres://HOST:PORT,HOST:PORT/DATABASE`.
pub(super) fn place(servers: &[AnyConnectOptions]) -> String {
    let mut places = servers.iter().map(place_of);
    let Some((hosts, database)) = places.next() else { return "postgres://".to_owned() };
    let hosts = places.fold(hosts, |hosts, (host, _)| format!("{hosts},{host}"));
    format!("postgres://{hosts}/{database}")
}

/// Returns `HOST:PORT` and the database of a URL.
fn place_of(options: &AnyConnectOptions) -> (String, String) {
    let url = &options.database_url;
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let decoded = |part: &str| decoded(options, part);
    let mut host = url.host_str().filter(|host| !host.is_empty()).map(decoded);
    let mut port = url.port();
    let mut database = Some(decoded(url.path().trim_start_matches('/'))).filter(|name| !name.is_empty());
    for (key, value) in url.query_pairs() {
        match &*key {
            "host" | "hostaddr" => host = Some(value.into_owned()),
            "port" => port = value.parse().ok(),
            "dbname" => database = Some(value.into_owned()),
            _ => {}
        }
    }
    let host = host.or_else(|| environment("PGHOST")).unwrap_or_else(|| "localhost".to_owned());
    let port = port.or_else(|| environment("PGPORT")?.parse().ok()).unwrap_or(5432);
    let database = database.or_else(|| environment("PGDATABASE")).unwrap_or_default();
    // If a slash is missing in the URL, the driver parses the user and the password as the name of the database. A name
    // with unusual characters is therefore not displayed.
    let is_name =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte));
    let database = if is_name(&database) { database } else { "(not shown)".to_owned() };
    (format!("{host}:{port}"), database)
}

/// Decodes a percent-encoded part of a URL, such as the path of a socket.
fn decoded(options: &AnyConnectOptions, part: &str) -> String {
    let mut url = options.database_url.clone();
    url.set_query(Some(&format!("part={part}")));
    url.query_pairs().next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Whether a URL names a server on another host, or the authority of its certificate, but sets no TLS mode. The driver's
/// default would then connect to any server that answers, even in plain text.
pub(super) fn leaves_host_unguarded(options: &AnyConnectOptions) -> bool {
    let url = &options.database_url;
    let mut host = url.host_str().unwrap_or_default().to_owned();
    let mut names_authority = false;
    for (key, value) in url.query_pairs() {
        match &*key {
            key if MODE.contains(&key) => return false,
            key if AUTHORITY.contains(&key) => names_authority = true,
            "host" | "hostaddr" => host = value.into_owned(),
            _ => {}
        }
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // The host is the folder of a Unix socket, plain or percent-encoded. Without a host, the driver looks for one, too.
    let is_socket = host.is_empty() || host.starts_with(['/', '%']);
    let is_local =
        is_socket || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // Without a host in the URL, the driver reads it from the environment.
    let host_of_environment = host.is_empty() && std::env::var_os("PGHOST").is_some();
    (!is_local || host_of_environment || names_authority && !is_socket)
        && std::env::var_os("PGSSLMODE").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_must_prove_itself_unless_the_url_says_how() {
        let unguarded = |url: &str| leaves_host_unguarded(&options(url).unwrap());
        for url in [
            "postgres://u@db.example.com/p",
            "postgres://u@10.0.0.1:5433/p",
            "postgres://u@[2001:db8::1]/p",
            "postgres://u@localhost/p?host=db.example.com",
            "postgres://u@localhost.example.com/p?application_name=x",
            "postgres://u@localhost/p?sslrootcert=ca.pem",
        ] {
            assert!(unguarded(url), "{url}");
        }
        for url in [
            "postgres://u@db.example.com/p?sslmode=disable",
            "postgres://u@db.example.com/p?ssl-mode=require",
            "postgres://u@localhost/p",
            "postgres://u@127.0.0.1:5433/p",
            "postgres://u@[::1]/p",
            "postgres://u@%2Frun%2Fpostgresql/p",
            "postgres://u@localhost/p?host=/run/postgresql",
            "postgres://u@%2Frun%2Fpostgresql/p?sslrootcert=ca.pem",
        ] {
            assert!(!unguarded(url), "{url}");
        }
    }

    #[test]
    fn a_malformed_url_is_not_repeated() {
        let error = options("postgres//ada:hunter2@host").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn a_place_names_host_port_and_database_and_no_user_or_password() {
        for (url, expected) in [
            ("postgres://ada:hunter2@db.example.com:5433/p", "postgres://db.example.com:5433/p"),
            ("postgres://ada@localhost/p?password=hunter2&port=6432", "postgres://localhost:6432/p"),
            ("postgres://ada@%2Frun%2Fpostgresql/p", "postgres:///run/postgresql:5432/p"),
            ("postgres://ada@localhost/p?host=10.0.0.7&dbname=q", "postgres://10.0.0.7:5432/q"),
            ("postgres://ada@[::1]:5433/p", "postgres://[::1]:5433/p"),
            ("postgres:/ada:hunter2@127.0.0.1", "postgres://localhost:5432/(not shown)"),
        ] {
            assert_eq!(place(&[options(url).unwrap()]), expected, "{url}");
        }
        let two = servers("postgres://ada:hunter2@a.example.com:5433,[::1]/p?x=y").unwrap();
        let two: Vec<_> = two.iter().map(|url| options(url).unwrap()).collect();
        assert_eq!(place(&two), "postgres://a.example.com:5433,[::1]:5432/p");
    }

    #[test]
    fn a_url_may_name_several_servers() {
        for (url, expected) in [
            ("postgres://u@h/p", &["postgres://u@h/p"][..]),
            (
                "postgres://u:a,b@h:1,i:2/p?c=d,e",
                &["postgres://u:a,b@h:1/p?c=d,e", "postgres://u:a,b@i:2/p?c=d,e"],
            ),
            ("postgres://%2Fa:1,%2Fb:2/p", &["postgres://%2Fa:1/p", "postgres://%2Fb:2/p"]),
            ("postgres://[::1],[::2]:9", &["postgres://[::1]", "postgres://[::2]:9"]),
            ("sqlite:a,b", &["sqlite:a,b"]),
        ] {
            assert_eq!(servers(url).unwrap(), expected, "{url}");
        }
        for url in [
            "postgres://u:hunter2@a,,b/p",
            "postgres://u:hunter2@a,/p",
            &format!("postgres://u{}/p", ",a".repeat(16)),
        ] {
            let error = servers(url).unwrap_err();
            assert!(
                error.to_string().contains("separated by commas") && !error.to_string().contains("hunter2")
            );
        }
    }

    #[test]
    fn the_target_is_read_and_the_driver_does_not_see_it() {
        let read = |url: &str| {
            let mut options = options(url).unwrap();
            let target = take_target(&mut options).map_err(|error| error.to_string());
            (target, options.database_url.to_string())
        };
        let plain = "postgres://u@h/p";
        for (query, expected) in [("", false), ("?target_session_attrs=any", false)] {
            assert_eq!(read(&format!("{plain}{query}")), (Ok(expected), plain.into()));
        }
        for target in ["read-write", "primary"] {
            assert_eq!(read(&format!("{plain}?target_session_attrs={target}")), (Ok(true), plain.into()));
        }
        for bad in ["standby", "read-only", "", "any&target_session_attrs=any"] {
            let error = read(&format!("postgres://u:hunter2@h/p?target_session_attrs={bad}")).0.unwrap_err();
            assert!(error.contains("target_session_attrs") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_authority_that_would_not_be_read_is_refused() {
        let check = |query: &str| {
            let options = options(&format!("postgres://u:hunter2@h/p?{query}")).unwrap();
            refuse_unread_authority(&options).map_err(|error| error.to_string())
        };
        for read in [
            "",
            "sslmode=require",
            "sslrootcert=a",
            "sslrootcert=a&sslmode=verify-full",
            "sslmode=Verify-CA&ssl-ca=a",
            "sslmode=require&sslmode=verify-full&sslrootcert=a",
        ] {
            assert_eq!(check(read), Ok(()), "{read}");
        }
        for unread in [
            "sslmode=require&sslrootcert=a",
            "ssl-mode=prefer&ssl-root-cert=a",
            "sslrootcert=a&sslmode=disable",
            "sslmode=verify-full&sslmode=require&ssl-ca=a",
        ] {
            let error = check(unread).unwrap_err();
            assert!(error.contains("sslmode=verify-full") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_option_that_would_have_no_effect_is_refused_and_not_quoted() {
        let check = |query: &str| {
            let options = options(&format!("postgres://u:hunter2@h/p?{query}")).unwrap();
            refuse_unknown(&options).map_err(|error| error.to_string())
        };
        for known in
            ["", "sslmode=require&sslrootcert=a", "host=/run/postgresql", "options[a]=b", "options%5Ba%5D=b"]
        {
            assert_eq!(check(known), Ok(()), "{known}");
        }
        for unknown in
            ["connect_timeout=3", "sslmode=require&channel_binding=require", "SSLMODE=require", "hunter2@h"]
        {
            let error = check(unknown).unwrap_err();
            assert!(error.contains("option") && error.contains("sslmode"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_pool_mode_is_read_and_the_driver_does_not_see_it() {
        let read = |url: &str| {
            let mut options = options(url).unwrap();
            let mode = take_pool_mode(&mut options).map_err(|error| error.to_string());
            (mode, options.database_url.to_string())
        };
        assert_eq!(read("postgres://u@h/p?pool_mode=transaction"), (Ok(true), "postgres://u@h/p".into()));
        assert_eq!(read("postgres://u@h/p?pool_mode=session"), (Ok(false), "postgres://u@h/p".into()));
        let with_more = "postgres://u@h/p?sslmode=disable&pool_mode=transaction&options=a%20b";
        assert_eq!(read(with_more), (Ok(true), "postgres://u@h/p?sslmode=disable&options=a+b".into()));
        let as_written = "postgres://u@h/p?options=a%20b";
        assert_eq!(read(as_written), (Ok(false), as_written.into()));
        for bad in ["pool_mode=statement", "pool_mode=", "pool_mode=session&pool_mode=transaction"] {
            let (mode, _) = read(&format!("postgres://u:hunter2@h/p?{bad}"));
            let error = mode.unwrap_err();
            assert!(error.contains("pool_mode") && !error.contains("hunter2"), "{error}");
        }
    }
}
