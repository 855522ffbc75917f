//! User and group that the process changes to (`proxy.user`, `proxy.group`) after its ports are bound. Only root can
//! bind ports below 1024, but a process with the rights of root should not read the bytes of clients.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getuid, setgid, setuid};

use crate::config::Proxy;

/// User and group that the process must change to. An empty key changes nothing.
#[derive(Debug)]
pub struct Identity {
    user: Option<User>,
    group: Option<Gid>,
}

/// Reason why the process cannot become the configured user or group.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The user or group does not exist.
    #[error("{key}: there is no {kind} '{name}' on this machine")]
    Unknown {
        /// Configuration key.
        key: &'static str,
        /// Kind of the name: "user" or "group".
        kind: &'static str,
        /// Configured name.
        name: String,
    },
    /// The system's list of users or groups cannot be read.
    #[error("{key}: cannot look up '{name}': {error}")]
    LookUp {
        /// Configuration key.
        key: &'static str,
        /// Configured name.
        name: String,
        /// Error of the system.
        error: Errno,
    },
    /// The process is not root, and only root can become another user or group.
    #[error(
        "{key} = \"{name}\" requires root, and this process has {own}: start it as root, or remove the key"
    )]
    NotRoot {
        /// Configuration key.
        key: &'static str,
        /// Configured name.
        name: String,
        /// Current user id or group id of the process.
        own: String,
    },
    /// The system refused the change.
    #[error("cannot change to the user and group in proxy.user and proxy.group ({step}): {error}")]
    Refused {
        /// System call that failed.
        step: &'static str,
        /// Error of the system.
        error: Errno,
    },
}

const USER: &str = "proxy.user";
const GROUP: &str = "proxy.group";

impl Identity {
    /// Returns the user and group that `proxy` names, if this process may change to them.
    ///
    /// # Errors
    /// Returns an error if a name is unknown on this machine, or if this process may not become that user or group.
    pub fn of(proxy: &Proxy) -> Result<Self, IdentityError> {
        let user = named(USER, "user", &proxy.user, User::from_name)?;
        let group = named(GROUP, "group", &proxy.group, Group::from_name)?;
        if !geteuid().is_root() {
            let not_root =
                |key, name: &str, own| Err(IdentityError::NotRoot { key, name: name.to_owned(), own });
            if user.as_ref().is_some_and(|user| user.uid != geteuid()) {
                return not_root(USER, &proxy.user, format!("user id {}", geteuid()));
            }
            if group.as_ref().is_some_and(|group| group.gid != getegid()) {
                return not_root(GROUP, &proxy.group, format!("group id {}", getegid()));
            }
        }
        let group = group.map(|group| group.gid).or(user.as_ref().map(|user| user.gid));
        Ok(Identity { user, group })
    }

    /// Returns the id of the user that the process will run as.
    pub fn uid(&self) -> Uid {
        self.user.as_ref().map_or(geteuid(), |user| user.uid)
    }

    /// Changes the process to this user and group for good. The groups are changed first, because the new user may
    /// not change them. If the process is not root, nothing is done: [`Identity::of`] has checked that the process
    /// already has this identity.
    ///
    /// # Errors
    /// Returns an error if the system refuses.
    pub fn assume(&self) -> Result<(), IdentityError> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let refused = |step| move |error| IdentityError::Refused { step, error };
        if let Some(group) = self.group {
            if let Some(user) = &self.user {
                supplementary_groups(user, group).map_err(refused("initgroups"))?;
            }
            setgid(group).map_err(refused("setgid"))?;
        }
        if let Some(user) = &self.user {
            setuid(user.uid).map_err(refused("setuid"))?;
            if getuid() != user.uid || geteuid() != user.uid {
                return Err(refused("setuid")(Errno::EPERM));
            }
        }
        Ok(())
    }
}

#[cfg(not(target_vendor = "apple"))]
fn supplementary_groups(user: &User, group: Gid) -> nix::Result<()> {
    let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
    nix::unistd::initgroups(&name, group)
}

/// Does nothing: macOS keeps supplementary groups in another place, and has no call for them.
#[cfg(target_vendor = "apple")]
fn supplementary_groups(_user: &User, _group: Gid) -> nix::Result<()> {
    Ok(())
}

/// Looks up `name` in the system's list; returns `None` if `name` is empty.
fn named<T>(
    key: &'static str,
    kind: &'static str,
    name: &str,
    look_up: impl FnOnce(&str) -> nix::Result<Option<T>>,
) -> Result<Option<T>, IdentityError> {
    if name.is_empty() {
        return Ok(None);
    }
    let found = look_up(name);
    let found = found.map_err(|error| IdentityError::LookUp { key, name: name.to_owned(), error })?;
    let unknown = || IdentityError::Unknown { key, kind, name: name.to_owned() };
    found.map(Some).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(user: &str, group: &str) -> Result<Identity, String> {
        let proxy = Proxy { user: user.to_owned(), group: group.to_owned(), ..Proxy::default() };
        Identity::of(&proxy).map_err(|error| error.to_string())
    }

    #[test]
    fn unknown_user_or_group_error_names_the_key() {
        assert_eq!(
            of("no-such-user", "").unwrap_err(),
            "proxy.user: there is no user 'no-such-user' on this machine"
        );
        assert_eq!(
            of("", "no-such-group").unwrap_err(),
            "proxy.group: there is no group 'no-such-group' on this machine"
        );
    }

    #[test]
    fn own_user_needs_no_root() {
        let own = User::from_uid(geteuid()).unwrap().unwrap();
        let identity = of(&own.name, "").unwrap();
        assert_eq!(identity.uid(), geteuid());
        assert_eq!(of("", "").unwrap().uid(), geteuid());
    }
}
