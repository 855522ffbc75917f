//! The user and the group that the process becomes (`proxy.user`, `proxy.group`) once its ports are bound: ports
//! below 1024 take root, what comes in over them should not meet it.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getuid, setgid, setuid};

use crate::config::Proxy;

/// Whom the process is to become. Default: whom it is.
#[derive(Debug)]
pub struct Identity {
    user: Option<User>,
    group: Option<Gid>,
}

/// Why it cannot become that.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no such user or group.
    #[error("{key}: there is no {kind} '{name}' on this machine")]
    Unknown {
        /// The key.
        key: &'static str,
        /// "user" or "group".
        kind: &'static str,
        /// What it says.
        name: String,
    },
    /// The system's list of them cannot be read.
    #[error("{key}: cannot look '{name}' up: {error}")]
    LookUp {
        /// The key.
        key: &'static str,
        /// What it says.
        name: String,
        /// What the system said.
        error: Errno,
    },
    /// Only root can become somebody else.
    #[error(
        "{key} = \"{name}\" takes root, and this process has the {own}: start it as root, or leave the key out"
    )]
    NotRoot {
        /// The key.
        key: &'static str,
        /// What it says.
        name: String,
        /// Who it is.
        own: String,
    },
    /// The system refused.
    #[error("cannot become what proxy.user and proxy.group say ({step}): {error}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// What the system said.
        error: Errno,
    },
}

const USER: &str = "proxy.user";
const GROUP: &str = "proxy.group";

impl Identity {
    /// Whom `proxy` names, if this process may become that.
    ///
    /// # Errors
    /// Names that are unknown here; that it may not.
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

    /// The id of the user that the process will run as.
    pub fn uid(&self) -> Uid {
        self.user.as_ref().map_or(geteuid(), |user| user.uid)
    }

    /// Becomes that, for good: first the groups, then the user, who could not change them any more. Where it is
    /// that already, nothing is done.
    ///
    /// # Errors
    /// Where the system refuses.
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

/// macOS keeps them elsewhere, and has no call for it.
#[cfg(target_vendor = "apple")]
fn supplementary_groups(_user: &User, _group: Gid) -> nix::Result<()> {
    Ok(())
}

/// What the system knows by `name`; `None` where that is empty.
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
    fn names_that_nobody_has_are_named_with_their_key() {
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
    fn to_be_who_one_is_takes_nothing() {
        let own = User::from_uid(geteuid()).unwrap().unwrap();
        let identity = of(&own.name, "").unwrap();
        assert_eq!(identity.uid(), geteuid());
        assert_eq!(of("", "").unwrap().uid(), geteuid());
    }
}
