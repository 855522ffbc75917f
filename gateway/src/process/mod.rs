//! The life of the process: its start ([`start`]), the hand-over of its listeners to another process ([`upgrade`]), and
//! its end ([`signals`]). Also the process as the system sees it: in the background ([`daemon`]), its user
//! ([`Identity`]), the file with its id ([`PidFile`]), the number of its open files ([`descriptors`]), and its
//! announcements ([`announce`]).

pub mod announce;
pub mod daemon;
pub mod descriptors;
pub mod event_loop;
mod identity;
mod pid_file;
pub mod signals;
pub mod start;
pub mod upgrade;

pub use announce::Announcer;
pub use identity::{Identity, IdentityError};
pub use pid_file::{PidFile, PidFileError, parse_running, running_gateway};
