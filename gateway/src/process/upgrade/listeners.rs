//! The listening sockets of a process: taken over from its predecessor, or bound anew; and a duplicate of each,
//! for its successor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::wire::Named;
use crate::listener::{self, BindError};

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

    /// A listener on `address`, which the configuration has under `key`: the predecessor's, or a new one. Port 0
    /// becomes a free one.
    ///
    /// # Errors
    /// Where the address is taken, not of this machine, or not permitted.
    pub fn open(
        &mut self,
        address: SocketAddr,
        key: &'static str,
    ) -> Result<(TcpListener, SocketAddr), BindError> {
        let found = self.inherited.iter().position(|listener| listener.is_for(key, address));
        let (socket, bound) = match found.map(|at| self.inherited.remove(at)) {
            Some(listener) => {
                self.taken += 1;
                (listener.socket, listener.bound)
            }
            None => listener::bind(address, key)?,
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
            listeners.open(addr("127.0.0.1:0"), key).unwrap();
        }
        listeners.finish().0
    }

    #[test]
    fn what_is_there_is_taken_what_is_new_is_bound_and_the_rest_is_closed() {
        let before = running(&["http", "http", "metrics"]);
        let bound: Vec<SocketAddr> = before.iter().map(|listener| listener.bound).collect();
        let mut listeners = Listeners::inheriting(before);
        let any = addr("127.0.0.1:0");
        assert_eq!(listeners.open(any, "metrics").unwrap().1, bound[2], "port 0 is told apart by its key");
        assert_eq!(listeners.open(any, "http").unwrap().1, bound[0]);
        assert!(!bound.contains(&listeners.open(any, "management").unwrap().1));
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
        assert_eq!(listeners.open(address, "metrics").unwrap().1, address);
    }

    #[test]
    fn to_want_none_of_them_is_noticed() {
        let mut listeners = Listeners::inheriting(running(&["http"]));
        listeners.open(addr("127.0.0.1:0"), "metrics").unwrap();
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
