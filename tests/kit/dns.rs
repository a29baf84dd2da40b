//! An authoritative nameserver over UDP and TCP.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The answer to queries about a name.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Addresses of both families, and their lifetime in seconds.
    Addresses(u32, Vec<IpAddr>),
    /// The name does not exist (NXDOMAIN).
    NoSuchName,
    /// The nameserver failed (SERVFAIL).
    Failure,
    /// Queries for IPv4 addresses fail. The name has these IPv6 addresses.
    HalfFailure(Vec<IpAddr>),
    /// Hosts and ports of a service, with their priorities and weights (RFC 2782).
    Service(Vec<(u16, u16, u16, &'static str)>),
    /// No answer at all.
    Silence,
}

/// A query as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The name, in lower case and without the last dot.
    pub name: String,
    /// Whether the query is for IPv6 addresses.
    pub is_ipv6: bool,
    /// Whether the query came over TCP.
    pub is_tcp: bool,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, Reply>,
    queries: Vec<Query>,
    truncates: bool,
}

/// A nameserver. It ends with the process.
#[derive(Debug)]
pub struct Nameserver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Nameserver {
    /// Starts a nameserver that knows no name.
    pub fn start() -> Self {
        let (udp, tcp) = std::iter::repeat_with(|| {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            let tcp = TcpListener::bind(udp.local_addr()?)?;
            io::Result::Ok((udp, tcp))
        })
        .find_map(Result::ok)
        .expect("a port is free for both");
        let server = Self { address: udp.local_addr().unwrap(), state: Arc::default() };
        let state = server.state.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                if let Some(answer) = answer(&state, &buffer[..length], false) {
                    let _ = udp.send_to(&answer, peer);
                }
            }
        });
        let state = server.state.clone();
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || over_tcp(stream, &state));
            }
        });
        server
    }

    /// Sets the answer to queries about a name.
    pub fn set(&self, name: &str, reply: Reply) {
        self.state.lock().unwrap().names.insert(name.to_owned(), reply);
    }

    /// Gives a name these addresses, for one second.
    pub fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.set(name, Reply::Addresses(1, addresses));
    }

    /// Makes all answers over UDP empty and truncated, so that clients ask over TCP (RFC 1035 section 4.2.1).
    pub fn truncate(&self) {
        self.state.lock().unwrap().truncates = true;
    }

    /// Returns all queries so far.
    pub fn queries(&self) -> Vec<Query> {
        self.state.lock().unwrap().queries.clone()
    }

    /// Returns the line of a policy that makes an upstream use this nameserver.
    pub fn key(&self) -> String {
        format!("resolver = \"{}\"", self.address)
    }
}

fn over_tcp(mut stream: TcpStream, state: &Mutex<State>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        if let Some(answer) = answer(state, &query, true) {
            let length = u16::try_from(answer.len()).ok()?.to_be_bytes();
            stream.write_all(&[&length[..], &answer].concat()).ok()?;
        }
    }
}

/// Returns the answer to a query (RFC 1035 section 4.1).
fn answer(state: &Mutex<State>, query: &[u8], is_tcp: bool) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let is_ipv6 = kind == 28;
    let name = labels.join(".");
    let (reply, truncates) = {
        let mut state = state.lock().unwrap();
        state.queries.push(Query { name: name.clone(), is_ipv6, is_tcp });
        (state.names.get(&name).cloned().unwrap_or(Reply::NoSuchName), state.truncates && !is_tcp)
    };
    let (code, lifetime, addresses) = match reply {
        Reply::Addresses(lifetime, addresses) => (0, lifetime, addresses),
        Reply::NoSuchName => (3, 0, Vec::new()),
        Reply::HalfFailure(addresses) if is_ipv6 => (0, 1, addresses),
        Reply::Failure | Reply::HalfFailure(_) => (2, 0, Vec::new()),
        Reply::Service(records) if kind == 33 => {
            return Some(service(&query[..at + 4], &records));
        }
        Reply::Service(_) => (0, 1, Vec::new()),
        Reply::Silence => return None,
    };
    let addresses: Vec<_> =
        addresses.into_iter().filter(|address| !truncates && address.is_ipv6() == is_ipv6).collect();
    let mut answer = query[..2].to_vec();
    answer.extend([0x84 | u8::from(truncates) << 1 | query[2] & 1, code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&query[12..at + 4]);
    for address in addresses {
        // A pointer to the name of the question.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(lifetime.to_be_bytes());
        match address {
            IpAddr::V4(v4) => answer.extend([&[0, 4][..], &v4.octets()].concat()),
            IpAddr::V6(v6) => answer.extend([&[0, 16][..], &v6.octets()].concat()),
        }
    }
    Some(answer)
}

/// Returns the answer to a query for a service, which ends with its question.
fn service(query: &[u8], records: &[(u16, u16, u16, &str)]) -> Vec<u8> {
    let mut answer = query[..2].to_vec();
    answer.extend([0x84 | query[2] & 1, 0, 0, 1]);
    answer.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&query[12..]);
    for (priority, weight, port, host) in records {
        let mut data = [priority, weight, port].map(|number| number.to_be_bytes()).concat();
        for label in host.split('.') {
            data.push(u8::try_from(label.len()).unwrap());
            data.extend(label.bytes());
        }
        data.push(0);
        answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 1]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}
