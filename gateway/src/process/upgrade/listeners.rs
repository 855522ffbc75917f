//! Listening sockets of a process, which are taken over from its predecessor or bound anew. The process keeps a
//! duplicate of each socket for a successor.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::wire::Named;
use crate::listener::{self, BindError, leaves_ipv4};

/// Listening socket, with its address and its configuration key.
#[derive(Debug)]
pub struct Listener {
    /// Configuration key of the address.
    pub key: String,
    /// Configured address; its port may be 0.
    pub asked: SocketAddr,
    /// Address that the socket is bound to.
    pub bound: SocketAddr,
    /// Socket itself.
    pub socket: TcpListener,
}

impl Listener {
    /// Creates the listener from a received socket, which `named` describes.
    ///
    /// # Errors
    /// Returns an error if the descriptor is no socket, or if the socket is bound to another address.
    pub(super) fn received(named: Named, socket: OwnedFd) -> io::Result<Self> {
        let Named { key, asked, bound } = named;
        let socket = TcpListener::from(socket);
        let actual = socket.local_addr()?;
        if actual != bound {
            return Err(io::Error::other(format!(
                "a socket that should be bound to {bound} is bound to {actual}"
            )));
        }
        socket.set_nonblocking(true)?;
        Ok(Listener { key, asked, bound, socket })
    }

    /// Returns another descriptor of the same socket.
    ///
    /// # Errors
    /// Returns an error if this process may not open another descriptor.
    pub fn duplicate(&self) -> io::Result<Self> {
        let Listener { key, asked, bound, socket } = self;
        Ok(Listener { key: key.clone(), asked: *asked, bound: *bound, socket: socket.try_clone()? })
    }

    pub(super) fn named(&self) -> Named {
        Named { key: self.key.clone(), asked: self.asked, bound: self.bound }
    }

    /// Returns an error if the socket accepts IPv4 and must not, or must and does not. A socket's choice is fixed
    /// when it is bound. `all` are the configured addresses, and `others` are the other inherited listeners.
    fn misfit(&self, all: &[SocketAddr], others: &[Listener]) -> Option<io::Error> {
        let any_ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.asked.port()));
        let takes = match (leaves_ipv4(self.asked, all), listener::is_ipv6_only(&self.socket)) {
            (true, false) => "IPv4 and IPv6",
            // Without a listener for IPv4, "only IPv6" may be the default of the system.
            (false, true) if others.iter().any(|other| other.asked == any_ipv4) => "only IPv6",
            _ => return None,
        };
        Some(io::Error::other(format!(
            "the running process accepts {takes} on this listener, and a hand-over cannot change that; stop it, and \
             start this one without --upgrade"
        )))
    }

    /// Returns true if the listener is for `address` under `key`. The key may differ, because an address may move to
    /// another key. The key of an address with port 0 must be equal, because such addresses differ only in their key.
    fn is_for(&self, key: &str, address: SocketAddr) -> bool {
        self.asked == address && (self.key == key || address.port() != 0)
    }
}

/// Listeners of a process that starts.
#[derive(Debug, Default)]
pub struct Listeners {
    inherited: Vec<Listener>,
    open: Vec<Listener>,
    taken: usize,
}

impl Listeners {
    /// Creates a set without open listeners, which can take over the `inherited` listeners.
    pub fn inheriting(inherited: Vec<Listener>) -> Self {
        Listeners { inherited, ..Listeners::default() }
    }

    /// Opens a listener on `address`: takes over the predecessor's listener, or binds a new one. `key` is the
    /// configuration key of the address, and `all` are all configured addresses. Port 0 becomes a free port.
    ///
    /// # Errors
    /// Returns an error if the address is in use, does not belong to this machine, or is not permitted. Also returns
    /// an error if the predecessor's listener accepts IPv4 and the new one must not, or the reverse.
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

    /// Returns true if there were inherited listeners and none of them was taken over.
    pub fn took_none(&self) -> bool {
        self.taken == 0 && !self.inherited.is_empty()
    }

    /// Returns a duplicate of each listener for a successor, and the inherited addresses that were not taken over.
    /// This closes the listeners on these addresses.
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
    fn listeners_are_taken_over_or_bound_or_closed() {
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
    fn address_may_move_to_another_key() {
        let mut before = running(&["http"]);
        before[0].asked = before[0].bound;
        let address = before[0].bound;
        let mut listeners = Listeners::inheriting(before);
        assert_eq!(listeners.open(address, "metrics", &[]).unwrap().1, address);
    }

    /// Returns a listener on every IPv6 address, and the wildcard address of IPv4 with the same port.
    fn wildcard() -> (Listener, SocketAddr) {
        let (socket, bound) = listener::bind(addr("[::]:0"), "http").unwrap();
        let ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, bound.port()));
        (Listener { key: "http".to_owned(), asked: bound, bound, socket }, ipv4)
    }

    #[test]
    fn dual_stack_socket_beside_ipv4_is_refused() {
        let (both, ipv4) = wildcard();
        let ipv6 = both.asked;
        let mut listeners = Listeners::inheriting(vec![both.duplicate().unwrap()]);
        assert!(listeners.open(ipv6, "http", &[ipv6]).is_ok(), "alone it goes on as it is");
        let mut listeners = Listeners::inheriting(vec![both]);
        let error = listeners.open(ipv6, "http", &[ipv4, ipv6]).unwrap_err().to_string();
        assert!(
            error.contains("accepts IPv4 and IPv6 on this listener") && error.contains("without --upgrade"),
            "{error}"
        );
    }

    #[test]
    fn ipv6_only_socket_wanted_for_both_is_refused() {
        // Both wildcard addresses have the same port, which is free on both.
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
        assert!(error.contains("accepts only IPv6 on this listener"), "{error}");
    }

    #[test]
    fn took_none_is_true_without_common_listener() {
        let mut listeners = Listeners::inheriting(running(&["http"]));
        listeners.open(addr("127.0.0.1:0"), "metrics", &[]).unwrap();
        assert!(listeners.took_none());
        assert!(!Listeners::default().took_none());
    }

    #[test]
    fn received_socket_with_other_address_is_refused() {
        let listener = running(&["http"]).remove(0);
        let mut named = listener.named();
        named.bound.set_port(1);
        let error = Listener::received(named, listener.socket.into()).unwrap_err().to_string();
        assert!(error.starts_with("a socket that should be bound to 127.0.0.1:1 is bound to "), "{error}");
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let named = Named { key: "http".to_owned(), asked: addr("127.0.0.1:0"), bound: addr("127.0.0.1:1") };
        assert!(Listener::received(named, file).is_err());
    }
}
