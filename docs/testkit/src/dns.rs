//! DNS server for tests, over UDP. It knows the names that a test has set, and fails on request.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// DNS server on loopback. A name that the test has not set does not exist.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _serving: AbortOnDropHandle<()>,
}

/// Way in which queries for a name fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The name does not exist (NXDOMAIN).
    NotFound,
    /// The server itself has failed (SERVFAIL).
    ServerFailure,
    /// The server sends no response.
    Silence,
}

/// Host and port of a service, as in an SRV record (RFC 2782).
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    /// Priority of the service; the lowest is used first.
    pub priority: u16,
    /// Weight of the service among those of the same priority.
    pub weight: u16,
    /// Port of the service.
    pub port: u16,
    /// Name of the service's host.
    pub target: &'a str,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Entry>,
    /// Names of all queries, in lower case and with the dot at the end.
    asked: Vec<String>,
    /// Response code for queries with an EDNS record.
    edns_refusal: Option<u8>,
}

#[derive(Clone)]
enum Entry {
    Records { ttl: u32, data: Vec<RData> },
    Fails(Failure),
}

impl Dns {
    /// Starts a server on a free port of loopback.
    pub async fn start() -> Dns {
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let bound = bound.and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) = bound.unwrap_or_else(|error| panic!("cannot bind a socket for DNS: {error}"));
        let zone = Arc::new(Mutex::new(Zone::default()));
        Dns {
            address,
            zone: zone.clone(),
            _serving: AbortOnDropHandle::new(tokio::spawn(serve(socket, zone))),
        }
    }

    /// Returns the server's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives `name` these addresses, for `ttl` seconds, from the next query on.
    pub fn addresses(&self, name: &str, ttl: u32, addresses: &[IpAddr]) {
        let data = addresses.iter().map(|address| match *address {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        });
        self.set(name, Entry::Records { ttl, data: data.collect() });
    }

    /// Gives `name` these services (SRV), for `ttl` seconds, from the next query on.
    pub fn services(&self, name: &str, ttl: u32, services: &[Service<'_>]) {
        let data = services
            .iter()
            .map(|of| RData::SRV(SRV::new(of.priority, of.weight, of.port, absolute(of.target))));
        self.set(name, Entry::Records { ttl, data: data.collect() });
    }

    /// Makes queries for `name` fail, from the next one on.
    pub fn fail(&self, name: &str, failure: Failure) {
        self.set(name, Entry::Fails(failure));
    }

    /// Refuses queries with an EDNS record. The response has this code and a header only, as from a server
    /// that does not know the record (RFC 6891 7).
    pub fn refuse_edns(&self, code: u8) {
        self.zone.lock().edns_refusal = Some(code & 0x0f);
    }

    /// Returns the number of queries for `name`, of any type.
    pub fn asked(&self, name: &str) -> usize {
        let name = key(&absolute(name));
        self.zone.lock().asked.iter().filter(|asked| **asked == name).count()
    }

    fn set(&self, name: &str, entry: Entry) {
        self.zone.lock().names.insert(key(&absolute(name)), entry);
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut datagram = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut datagram).await {
        let Ok(question) = Message::from_vec(&datagram[..length]) else { continue };
        let answer = zone.lock().answer(&question);
        if let Some(answer) = answer {
            // The client may have closed its socket.
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

impl Zone {
    /// Returns the response to `question`, if the server sends one.
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
        Err(error) => panic!("{name:?} is not a DNS name: {error}"),
    }
}

/// Returns a name in lower case, because names are case-insensitive.
fn key(name: &Name) -> String {
    name.to_ascii().to_ascii_lowercase()
}
