//! The listening sockets of a process: taken over from its predecessor, or bound anew; and a duplicate of each,
//! for its successor.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::wire::Named;
use crate::listener::{self, BindError, leaves_ipv4};

/// A listening socket, and what it is for.
#[derive(Debug)]
pub struct Listener {
    /// The key under which its address stands in the configuration.
    pub key: String,
    /// That address; its port may be 0.
    pub asked: SocketAddr,
    /// The address that it is bound to.
    pub bound: SocketAddr,
    /// It.
    pub socket: TcpListener,
}

impl Listener {
    /// The socket that came with `named`.
    ///
    /// # Errors
    /// Where it is none, or another one.
    pub(super) fn received(named: Named, socket: OwnedFd) -> io::Result<Self> {
        let Named { key, asked, bound } = named;
        let socket = TcpListener::from(socket);
        let actual = socket.local_addr()?;
        if actual != bound {
            return Err(io::Error::other(format!("a socket said to listen on {bound} is bound to {actual}")));
        }
        socket.set_nonblocking(true)?;
        Ok(Listener { key, asked, bound, socket })
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// Where this process may not have one more.
    pub fn duplicate(&self) -> io::Result<Self> {
        let Listener { key, asked, bound, socket } = self;
        Ok(Listener { key: key.clone(), asked: *asked, bound: *bound, socket: socket.try_clone()? })
    }

    pub(super) fn named(&self) -> Named {
        Named { key: self.key.clone(), asked: self.asked, bound: self.bound }
    }

    /// Why it does not do for its address beside `all` that are wanted, where it takes IPv4 and must not, or the other
    /// way about: that is settled when a socket is bound. `others` are those that are there.
    fn misfit(&self, all: &[SocketAddr], others: &[Listener]) -> Option<io::Error> {
        let any_ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.asked.port()));
        let takes = match (leaves_ipv4(self.asked, all), listener::is_ipv6_only(&self.socket)) {
            (true, false) => "IPv4 as well",
            // It may be the system that has it so.
            (false, true) if others.iter().any(|other| other.asked == any_ipv4) => "IPv6 only",
            _ => return None,
        };
        Some(io::Error::other(format!(
            "the running process listens there for {takes}, which no hand-over can change; stop it, and start this one \
             without --upgrade"
        )))
    }

    /// Whether it does for `address` under `key`. The same address is the same address under any key; port 0 is
    /// not.
    fn is_for(&self, key: &str, address: SocketAddr) -> bool {
        self.asked == address && (self.key == key || address.port() != 0)
    }
}

/// The listeners of a process that starts.
#[derive(Debug, Default)]
pub struct Listeners {
    inherited: Vec<Listener>,
    open: Vec<Listener>,
    taken: usize,
}

impl Listeners {
    /// None yet, and these to take.
    pub fn inheriting(inherited: Vec<Listener>) -> Self {
        Listeners { inherited, ..Listeners::default() }
    }

    /// A listener on `address`, which the configuration has under `key`, beside `all` that it has: the predecessor's,
    /// or a new one. Port 0 becomes a free one.
    ///
    /// # Errors
    /// Where the address is taken, not of this machine, or not permitted; or the predecessor listens there in another
    /// way.
    pub fn open(
        &mut self,
        address: SocketAddr,
        key: &'static str,
        all: &[SocketAddr],
    ) -> Result<(TcpListener, SocketAddr), BindError> {
        let found = self.inherited.iter().position(|listener| listener.is_for(key, address));
        let (socket, bound) = match found.map(|at| self.inherited.remove(at)) {
            Some(listener) => {
                if let Some(source) = listener.misfit(all, &self.inherited) {
                    return Err(BindError { address, key, source });
                }
                self.taken += 1;
                (listener.socket, listener.bound)
            }
            None => listener::bind_beside(address, key, all)?,
        };
        let duplicate = socket.try_clone().map_err(|source| BindError { address, key, source })?;
        self.open.push(Listener { key: key.to_owned(), asked: address, bound, socket: duplicate });
        Ok((socket, bound))
    }

    /// Whether there were listeners to take, and not one of them is wanted.
    pub fn took_none(&self) -> bool {
        self.taken == 0 && !self.inherited.is_empty()
    }

    /// A duplicate of each, for a successor; and the addresses that nobody wants any more, which are closed.
    pub fn finish(self) -> (Vec<Listener>, Vec<SocketAddr>) {
        (self.open, self.inherited.into_iter().map(|listener| listener.bound).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn running(keys: &[&'static str]) -> Vec<Listener> {
        let mut listeners = Listeners::default();
        for key in keys {
            listeners.open(addr("127.0.0.1:0"), key, &[]).unwrap();
        }
        listeners.finish().0
    }

    #[test]
    fn what_is_there_is_taken_what_is_new_is_bound_and_the_rest_is_closed() {
        let before = running(&["http", "http", "metrics"]);
        let bound: Vec<SocketAddr> = before.iter().map(|listener| listener.bound).collect();
        let mut listeners = Listeners::inheriting(before);
        let any = addr("127.0.0.1:0");
        assert_eq!(
            listeners.open(any, "metrics", &[]).unwrap().1,
            bound[2],
            "port 0 is told apart by its key"
        );
        assert_eq!(listeners.open(any, "http", &[]).unwrap().1, bound[0]);
        assert!(!bound.contains(&listeners.open(any, "management", &[]).unwrap().1));
        assert!(!listeners.took_none());
        let (open, unwanted) = listeners.finish();
        assert_eq!(open.len(), 3);
        assert_eq!(unwanted, [bound[1]]);
    }

    #[test]
    fn an_address_moves_from_one_key_to_another() {
        let mut before = running(&["http"]);
        before[0].asked = before[0].bound;
        let address = before[0].bound;
        let mut listeners = Listeners::inheriting(before);
        assert_eq!(listeners.open(address, "metrics", &[]).unwrap().1, address);
    }

    /// A listener on every IPv6 address, and what it is called where another one is on every IPv4 address.
    fn wildcard() -> (Listener, SocketAddr) {
        let (socket, bound) = listener::bind(addr("[::]:0"), "http").unwrap();
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, bound.port()));
        (Listener { key: "http".to_owned(), asked: bound, bound, socket }, ipv4)
    }

    #[test]
    fn a_socket_that_takes_ipv4_and_must_not_is_no_silent_loss() {
        let (both, ipv4) = wildcard();
        let ipv6 = both.asked;
        let mut listeners = Listeners::inheriting(vec![both.duplicate().unwrap()]);
        assert!(listeners.open(ipv6, "http", &[ipv6]).is_ok(), "alone it goes on as it is");
        let mut listeners = Listeners::inheriting(vec![both]);
        let error = listeners.open(ipv6, "http", &[ipv4, ipv6]).unwrap_err().to_string();
        assert!(
            error.contains("listens there for IPv4 as well") && error.contains("without --upgrade"),
            "{error}"
        );
    }

    #[test]
    fn a_socket_that_leaves_ipv4_is_not_taken_for_both() {
        // Both wildcards of a port that is free for both.
        let (one, other) = std::iter::repeat_with(|| {
            let (both, ipv4) = wildcard();
            let ipv6 = both.asked;
            drop(both);
            let mut listeners = Listeners::default();
            let opened = [ipv4, ipv6].map(|address| listeners.open(address, "http", &[ipv4, ipv6]).is_ok());
            (opened == [true; 2]).then(|| listeners.finish().0)
        })
        .take(100)
        .flatten()
        .find_map(|open| <[Listener; 2]>::try_from(open).ok())
        .map(|[one, other]| (one, other))
        .unwrap();
        let (ipv4, ipv6) = (one.asked, other.asked);
        let again = vec![one.duplicate().unwrap(), other.duplicate().unwrap()];
        let mut listeners = Listeners::inheriting(again);
        assert!(listeners.open(ipv4, "http", &[ipv4, ipv6]).is_ok());
        assert!(listeners.open(ipv6, "http", &[ipv4, ipv6]).is_ok());
        let mut listeners = Listeners::inheriting(vec![one, other]);
        let error = listeners.open(ipv6, "http", &[ipv6]).unwrap_err().to_string();
        assert!(error.contains("listens there for IPv6 only"), "{error}");
    }

    #[test]
    fn to_want_none_of_them_is_noticed() {
        let mut listeners = Listeners::inheriting(running(&["http"]));
        listeners.open(addr("127.0.0.1:0"), "metrics", &[]).unwrap();
        assert!(listeners.took_none());
        assert!(!Listeners::default().took_none());
    }

    #[test]
    fn a_socket_that_is_another_one_than_was_said_is_refused() {
        let listener = running(&["http"]).remove(0);
        let mut named = listener.named();
        named.bound.set_port(1);
        let error = Listener::received(named, listener.socket.into()).unwrap_err().to_string();
        assert!(error.starts_with("a socket said to listen on 127.0.0.1:1 is bound to "), "{error}");
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let named = Named { key: "http".to_owned(), asked: addr("127.0.0.1:0"), bound: addr("127.0.0.1:1") };
        assert!(Listener::received(named, file).is_err());
    }
}
