//! The life of the process: how it starts ([`start`]), hands its listeners over to another one ([`upgrade`]), and
//! stops ([`shutdown`]). And how the system sees it: in the background ([`daemon`]), under which user
//! ([`Identity`]), with its id in a file ([`PidFile`]), how many files it may have open ([`descriptors`]), and what it
//! tells the service manager ([`systemd`]).

mod announce;
pub mod daemon;
pub mod descriptors;
mod event_loop;
mod identity;
mod pid_file;
pub mod signals;
pub mod start;
pub mod systemd;
pub mod upgrade;

pub use announce::Announcer;
pub use identity::{Identity, IdentityError};
pub use pid_file::{PidFile, PidFileError, parse_running, running_gateway};
