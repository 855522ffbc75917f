//! Start of the process ([`start`]), hand-over of its listeners to another process ([`upgrade`]), and its end
//! ([`signals`]). Other modules are about the background process ([`daemon`]), the user ([`Identity`]), the file with
//! the process id ([`PidFile`]), the number of open files ([`descriptors`]), and announcements ([`announce`]).

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
