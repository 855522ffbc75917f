//! A DNS server for tests: it knows the names that a test has set, over UDP, and fails where it is told to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A server on loopback. A name that it was not told about does not exist.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    serving: JoinHandle<()>,
}

/// How questions for a name fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name (NXDOMAIN).
    NotFound,
    /// The server itself has failed (SERVFAIL).
    ServerFailure,
    /// No answer comes.
    Silence,
}

/// A place where a service is, as in an SRV record (RFC 2782).
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// The lowest comes first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host's name.
    pub target: &'a str,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Entry>,
    /// Every name that was asked for, in lower case and with the dot at its end.
    asked: Vec<String>,
    /// With what questions with an EDNS record are answered.
    edns_refusal: Option<u8>,
}

#[derive(Clone)]
enum Entry {
    Records { ttl: u32, data: Vec<RData> },
    Fails(Failure),
}

impl Dns {
    /// Starts a server on a free port.
    pub async fn start() -> Dns {
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let bound = bound.and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.unwrap_or_else(|error| panic!("no socket for DNS: {error}"));
        let zone = Arc::new(Mutex::new(Zone::default()));
        Dns { address, zone: zone.clone(), serving: tokio::spawn(serve(socket, zone)) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` has these addresses, for `ttl` seconds.
    pub fn addresses(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        let data = addresses.iter().map(|address| match *address {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        });
        self.set(name, Entry::Records { ttl, data: data.collect() });
    }

    /// From now on `name` leads to these services, for `ttl` seconds.
    pub fn services(&self, name: &str, ttl: u32, services: &[Service<'_>]) {
        let data = services
            .iter()
            .map(|of| RData::SRV(SRV::new(of.priority, of.weight, of.port, absolute(of.target))));
        self.set(name, Entry::Records { ttl, data: data.collect() });
    }

    /// From now on questions for `name` fail.
    pub fn fail(&self, name: &str, failure: Failure) {
        self.set(name, Entry::Fails(failure));
    }

    /// Refuses questions with an EDNS record: answers them with this response code and a header alone, as a server
    /// does that knows no such record (RFC 6891 7).
    pub fn refuse_edns(&self, code: u8) {
        self.zone.lock().edns_refusal = Some(code & 0x0f);
    }

    /// How many questions there have been for `name`, of any type.
    pub fn asked(&self, name: &str) -> usize {
        let name = key(&absolute(name));
        self.zone.lock().asked.iter().filter(|asked| **asked == name).count()
    }

    fn set(&self, name: &str, entry: Entry) {
        self.zone.lock().names.insert(key(&absolute(name)), entry);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut datagram = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut datagram).await {
        let Ok(question) = Message::from_vec(&datagram[..length]) else { continue };
        let answer = zone.lock().answer(&question);
        if let Some(answer) = answer {
            // Whoever asked may be gone.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

impl Zone {
    /// The answer to `question`, where there is to be one.
    fn answer(&mut self, question: &Message) -> Option<Vec<u8>> {
        let name = key(question.queries.first()?.name());
        match self.edns_refusal.filter(|_| question.edns.is_some()) {
            Some(code) => {
                self.asked.push(name);
                let [high, low] = question.metadata.id.to_be_bytes();
                Some(vec![high, low, 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            None => self.records(name, question)?.to_vec().ok(),
        }
    }

    fn records(&mut self, name: String, question: &Message) -> Option<Message> {
        let query = question.queries.first()?;
        let entry = self.names.get(&name).cloned().unwrap_or(Entry::Fails(Failure::NotFound));
        self.asked.push(name);
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match entry {
            Entry::Fails(Failure::Silence) => return None,
            Entry::Fails(Failure::NotFound) => answer.metadata.response_code = ResponseCode::NXDomain,
            Entry::Fails(Failure::ServerFailure) => answer.metadata.response_code = ResponseCode::ServFail,
            Entry::Records { ttl, data } => {
                let of_type = data.into_iter().filter(|data| data.record_type() == query.query_type());
                answer.add_answers(of_type.map(|data| Record::from_rdata(query.name().clone(), ttl, data)));
            }
        }
        Some(answer)
    }
}

fn absolute(name: &str) -> Name {
    match Name::from_ascii(name) {
        Ok(mut name) => {
            name.set_fqdn(true);
            name
        }
        Err(error) => panic!("{name:?} is no name: {error}"),
    }
}

/// Names are the same in any case.
fn key(name: &Name) -> String {
    name.to_ascii().to_ascii_lowercase()
}
